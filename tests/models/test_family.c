/* test_family.c -- every published model of the family by its config.json: sizes as published, and
 * as many parameters as it is said to have. No weights are needed.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/json.h"
#include "plugin/host.h"
#include "plugin/loader.h"
#include "qfw/model.h"

#include "../support/test.h"

typedef struct published {
    const char *name;
    const char *keys; /* of config.json, but for the factors of longrope */
    int n_factors;    /* of longrope; 0: none */
    int64_t parameters, n_layers, vocab, positions, rope_switch;
} published;

#define COMMON                                                                                     \
    "\"model_type\": \"phi3\", \"architectures\": [\"Phi3ForCausalLM\"], "                         \
    "\"attention_bias\": false, \"attention_dropout\": 0.0, \"embd_pdrop\": 0.0, "                 \
    "\"resid_pdrop\": 0.0, \"hidden_act\": \"silu\", \"initializer_range\": 0.02, "                \
    "\"rms_norm_eps\": 1e-05, \"use_cache\": true, \"torch_dtype\": \"bfloat16\", "
#define MINI                                                                                       \
    "\"hidden_size\": 3072, \"intermediate_size\": 8192, \"num_hidden_layers\": 32, "              \
    "\"num_attention_heads\": 32, \"num_key_value_heads\": 32, \"vocab_size\": 32064, "            \
    "\"original_max_position_embeddings\": 4096, \"rope_theta\": 10000.0, "                        \
    "\"tie_word_embeddings\": false, \"bos_token_id\": 1, \"eos_token_id\": 32000, "
#define MEDIUM                                                                                     \
    "\"hidden_size\": 5120, \"intermediate_size\": 17920, \"num_hidden_layers\": 40, "             \
    "\"num_attention_heads\": 40, \"num_key_value_heads\": 10, \"tie_word_embeddings\": false, "
#define MEDIUM_3                                                                                   \
    MEDIUM "\"vocab_size\": 32064, \"original_max_position_embeddings\": 4096, "                   \
           "\"rope_theta\": 10000.0, "
#define PHI_4                                                                                      \
    MEDIUM "\"vocab_size\": 100352, \"rope_scaling\": null, \"sliding_window\": null, "            \
           "\"bos_token_id\": 100257, \"eos_token_id\": 100265, \"pad_token_id\": 100349, "

static const published models[] = {
    {"Phi-3-mini-4k",
        MINI "\"max_position_embeddings\": 4096, \"sliding_window\": 2047, \"rope_scaling\": null",
        0, 3821079552, 32, 32064, 4096, 0},
    {"Phi-3-mini-128k", MINI "\"max_position_embeddings\": 131072, \"sliding_window\": 262144", 48,
        3821079552, 32, 32064, 131072, 4096},
    {"Phi-3.5-mini", MINI "\"max_position_embeddings\": 131072, \"sliding_window\": 262144", 48,
        3821079552, 32, 32064, 131072, 4096},
    {"Phi-3-medium-4k",
        MEDIUM_3 "\"max_position_embeddings\": 4096, \"sliding_window\": 2047, "
                 "\"rope_scaling\": null",
        0, 13960238080, 40, 32064, 4096, 0},
    {"Phi-3-medium-128k",
        MEDIUM_3 "\"max_position_embeddings\": 131072, \"sliding_window\": 131072", 64, 13960238080,
        40, 32064, 131072, 4096},
    {"Phi-4",
        PHI_4 "\"max_position_embeddings\": 16384, \"original_max_position_embeddings\": 16384, "
              "\"rope_theta\": 250000",
        0, 14659507200, 40, 100352, 16384, 0},
    {"Phi-4-reasoning",
        PHI_4 "\"max_position_embeddings\": 32768, \"original_max_position_embeddings\": 32768, "
              "\"rope_theta\": 500000",
        0, 14659507200, 40, 100352, 32768, 0},
    {"Phi-4-mini",
        "\"hidden_size\": 3072, \"intermediate_size\": 8192, \"num_hidden_layers\": 32, "
        "\"num_attention_heads\": 24, \"num_key_value_heads\": 8, \"vocab_size\": 200064, "
        "\"max_position_embeddings\": 131072, \"original_max_position_embeddings\": 4096, "
        "\"sliding_window\": 262144, \"rope_theta\": 10000.0, \"partial_rotary_factor\": 0.75, "
        "\"tie_word_embeddings\": true, \"bos_token_id\": 199999, \"eos_token_id\": 199999, "
        "\"pad_token_id\": 199999, \"full_attn_mod\": 1, \"interpolate_factor\": 1, "
        "\"lm_head_bias\": false, \"mlp_bias\": false",
        48, 3836021760, 32, 200064, 131072, 4096},
};

/* The published factors are not ours to copy; their number is checked, and that they are used. */
static char *make_config(const published *p) {
    char factors[2][1024] = {"", ""};
    for (int i = 0; i < p->n_factors; i++)
        for (int list = 0; list < 2; list++) {
            const size_t at = strlen(factors[list]);
            snprintf(factors[list] + at, sizeof factors[list] - at, "%s%g", i ? ", " : "",
                1 + 0.25 * list * i);
        }
    if (!p->n_factors) return mem_printf("{" COMMON "%s}", p->keys);
    return mem_printf("{" COMMON "%s, \"rope_scaling\": {\"type\": \"longrope\", "
                      "\"short_factor\": [%s], \"long_factor\": [%s]}}",
        p->keys, factors[0], factors[1]);
}

static const qfw_model *model; /* the phi3 plugin */
static const qfw_component *component;

static qfw_status open_model(const char *text, qfw_doc **doc, qfw_inst **m) {
    const qfw_status status = json_parse(text, strlen(text), "config.json", 0, "E_JSON", NULL, doc);
    return status == QFW_OK ? model->create(host_table(), NULL, *doc, m) : status;
}

static int64_t count_parameters(qfw_inst *m) {
    int64_t sum = 0;
    qfw_param_desc d = {.size = sizeof d};
    for (uint32_t i = 0; model->describe(m, i, &d) == QFW_OK; i++) {
        int64_t n = 1;
        for (uint32_t k = 0; k < d.rank; k++) n *= d.dim[k];
        sum += d.tied_to ? 0 : n;
        d = (qfw_param_desc){.size = sizeof d};
    }
    err_clear();
    return sum;
}

static void models_are_as_published(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        const published *p = &models[i];
        qfw_model_facts facts = {.size = sizeof facts};
        qfw_doc *doc = NULL;
        qfw_inst *m = NULL;
        char *text = make_config(p);
        if (open_model(text, &doc, &m) != QFW_OK) fail_msg("%s: %s", p->name, err_text(0));
        assert_int_equal(model->facts(m, &facts), QFW_OK);
        if (count_parameters(m) != p->parameters)
            fail_msg("%s: %lld parameters, not %lld", p->name, (long long)count_parameters(m),
                (long long)p->parameters);
        assert_int_equal(facts.n_layers, p->n_layers);
        assert_int_equal(facts.vocab, p->vocab);
        assert_int_equal(facts.max_positions, p->positions);
        assert_int_equal(facts.rope_switch, p->rope_switch);
        model->destroy(m);
        json_destroy(doc);
        mem_free(text);
    }
}

/* The config of Phi-4-mini with one thing changed. */
static void refused(const char *from, const char *to, const char *says) {
    const published *mini = &models[sizeof models / sizeof models[0] - 1];
    qfw_doc *doc = NULL;
    qfw_inst *m = NULL;
    char *text = make_config(mini);
    const char *at = strstr(text, from);
    assert_non_null(at);
    char *changed = mem_printf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    assert_int_equal(open_model(changed, &doc, &m), QFW_E_DATA);
    assert_int_equal(err_exit_code(), EXIT_DATA);
    if (!strstr(err_text(0), says)) fail_msg("%s: %s", to, err_text(0));
    json_destroy(doc);
    mem_free(changed);
    mem_free(text);
}

static void other_arithmetic_is_refused(void **state) {
    (void)state;
    refused("\"phi3\"", "\"phi3small\"", "/model_type: \"phi3small\", wanted \"phi3\"");
    refused("\"phi3\"", "\"phi4mm\"", "/model_type: \"phi4mm\", wanted \"phi3\"");
    refused("\"lm_head_bias\": false", "\"lm_head_bias\": true", "/lm_head_bias: true, wanted");
    refused("\"mlp_bias\": false", "\"mlp_bias\": true", "/mlp_bias: true, wanted false");
    refused("\"full_attn_mod\": 1", "\"full_attn_mod\": 2", "/full_attn_mod: 2, wanted 1");
    refused("\"interpolate_factor\": 1", "\"interpolate_factor\": 4", "wanted 1, as Phi-4-mini");
    refused("\"partial_rotary_factor\": 0.75", "\"partial_rotary_factor\": 1.0", "48 factors");
}

static int setup(void **state) {
    const plugin *file;
    (void)state;
    host_register("qfw.doc/1", &json_doc_api);
    plugin_set_host(host_table());
    if (plugin_open("model", "phi3", &file, &component) != QFW_OK) return -1;
    model = component->iface;
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_are_as_published),
        cmocka_unit_test(other_arithmetic_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
