/* ops.c -- the table of all ops, made from the list in qfw/ops.h, and the checks that are the same
 * for every op.
 */
#include "base/error.h"
#include "ops/op.h"

#include <string.h>

#define DECLARE(NAME, number, name) extern const op_def op_##name;
QFW_OP_LIST(DECLARE)
#undef DECLARE

static const op_def *const by_code[QFW_OP_END] = {
#define PLACE(NAME, number, name) [number] = &op_##name,
    QFW_OP_LIST(PLACE)
#undef PLACE
};

static const uint32_t in_order[] = {
#define CODE(NAME, number, name) number,
    QFW_OP_LIST(CODE)
#undef CODE
};

const op_def *op_find(uint32_t code) { return code < QFW_OP_END ? by_code[code] : NULL; }

const op_def *op_at(uint32_t i) {
    return i < sizeof in_order / sizeof *in_order ? by_code[in_order[i]] : NULL;
}

static qfw_status check_inputs(const op_def *def, const op_shape *const *in, uint32_t n_in) {
    if (n_in < def->n_in_min || n_in > def->n_in)
        return err_fail("E_OP_COUNT", QFW_E_INVALID, "%s: %u inputs, wanted %u to %u", def->name,
            n_in, def->n_in_min, def->n_in);
    for (uint32_t i = 0; i < def->n_in_min; i++)
        if (!in[i] && !def->optional[i])
            return err_fail("E_OP_COUNT", QFW_E_INVALID, "%s: input %u is absent, but not optional",
                def->name, i);
    return QFW_OK;
}

static qfw_status check_outputs(const op_def *def, const uint8_t *want, uint32_t n_out) {
    if (n_out != def->n_out)
        return err_fail("E_OP_COUNT", QFW_E_INVALID, "%s: room for %u outputs, wanted %u",
            def->name, n_out, def->n_out);
    for (uint32_t o = 0; want && o < n_out; o++)
        if (!want[o] && !def->out_optional[o])
            return err_fail("E_OP_COUNT", QFW_E_INVALID,
                "%s: output %u is not wanted, but not optional", def->name, o);
    return QFW_OK;
}

/* Every params struct begins with its size. */
static qfw_status check_params(const op_def *def, const void *params, uint32_t param_bytes) {
    uint32_t size = 0;
    if (params && param_bytes >= sizeof size) memcpy(&size, params, sizeof size);
    if (param_bytes == def->param_bytes && size == param_bytes) return QFW_OK;
    return err_fail("E_OP_PARAM", QFW_E_INVALID,
        "%s: %u bytes of params whose size says %u, wanted %u", def->name, param_bytes, size,
        def->param_bytes);
}

qfw_status op_infer_shapes(uint32_t code, const op_shape *const *in, uint32_t n_in,
    const void *params, uint32_t param_bytes, const uint8_t *want, op_shape *out, uint32_t n_out) {
    const op_def *const def = op_find(code);
    op_infer i = {.params = params};
    if (!def)
        return err_fail("E_OP_CODE", QFW_E_INVALID, "op: there is no op %u, wanted 1 to %d", code,
            QFW_OP_END - 1);
    QFW_TRY(check_inputs(def, in, n_in));
    QFW_TRY(check_outputs(def, want, n_out));
    QFW_TRY(check_params(def, params, param_bytes));
    for (uint32_t k = 0; k < n_in; k++) i.in[k] = in[k];
    for (uint32_t o = 0; o < n_out; o++) i.want[o] = want ? want[o] != 0 : 1;
    QFW_TRY(def->infer(&i));
    for (uint32_t o = 0; o < n_out; o++) out[o] = i.want[o] ? i.out[o] : (op_shape){0};
    return QFW_OK;
}
