/* safetensors.c -- libFuzzer target: any bytes as a safetensors file, and as the text of a header.
 *
 * As a file most inputs die at their length, so each is also taken as a header of the right length
 * in front of as many bytes of data as its last two bytes say. Beyond not crashing: what is
 * accepted tiles the data and is sorted, what is refused says so with the exit code of bad data.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/st_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int holds) {
    if (!holds) abort();
}

static void expect_refusal(qfw_status status) {
    expect(status == QFW_E_DATA && err_status() == status && err_count() == 1);
    expect(err_exit_code() == EXIT_DATA && strlen(err_text(0)) < 512);
    expect(!strncmp(err_name(), "E_ST_", 5) && strstr(err_text(0), "fuzz") != NULL);
}

static void expect_sound(const st_header *h, uint64_t data_at, uint64_t file_size) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < h->n_tensors; i++) {
        const st_tensor *t = &h->tensors[i];
        uint64_t n = 1;
        for (uint32_t k = 0; k < t->rank; k++) n *= (uint64_t)t->dim[k];
        expect(t->rank <= 8 && t->begin >= data_at && t->begin + t->bytes <= file_size);
        expect(n == 0 ? t->bytes == 0 : t->bytes % n == 0 && t->bytes / n <= 8);
        expect(i == 0 || strcmp(h->tensors[i - 1].name, t->name) < 0);
        bytes += t->bytes;
    }
    expect(bytes == file_size - data_at);
}

static void parse_text(const char *text, size_t n, uint64_t data_bytes) {
    st_header header;
    const uint64_t data_at = ST_LENGTH_BYTES + n;
    const qfw_status status = st_header_parse(text, n, data_at + data_bytes, "fuzz", &header);
    if (status != QFW_OK) {
        expect(header.tensors == NULL && header.meta == NULL);
        expect_refusal(status);
        return;
    }
    expect_sound(&header, data_at, data_at + data_bytes);
    st_header_free(&header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const qfw_status status = st_parse_header((const char *)data, size, size, "fuzz");
    if (status != QFW_OK) expect_refusal(status);
    err_clear();
    if (size >= 2)
        parse_text((const char *)data, size - 2, (uint64_t)(data[size - 2] | data[size - 1] << 8));
    err_clear();
    return 0;
}
