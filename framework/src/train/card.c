/* card.c -- README.md of a run: the model card that the Hub and PEFT's users read. The same run
 * gives the same bytes; of local paths it tells the base model's alone, as adapter_config.json
 * does.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"
#include "train/best.h"
#include "train/card_text.h"
#include "train/outputs.h"

enum { MAX_LOG_BYTES = 1 << 30, MAX_CARD_BYTES = 1 << 20 };
static const char mark[] = "<!-- Written by qfw. -->";

static const char *text_of(const run *r, uint32_t section, const char *key) {
    return cfg_text(run_cfg(r, section), key);
}

static int is_adapter(const run *r) { return r->n_loras > 0; }
static int is_fresh(const run *r) {
    return !strcmp(text_of(r, SECTION_MODEL, "init"), "random") && !is_adapter(r);
}

static const char *leaf_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* --- front matter --- */

static void put_front(const run *r, FILE *out) {
    const char *base = text_of(r, SECTION_MODEL, "path");
    const char *licence = text_of(r, SECTION_DATA, "licence"), *known = card_licence(licence);
    fputs("---\n", out);
    if (!is_fresh(r)) {
        fputs("base_model: ", out);
        card_yaml(out, "", base);
        fputc('\n', out);
    }
    fprintf(out, "library_name: %s\n", is_adapter(r) ? "peft" : "transformers");
    if (*licence) fprintf(out, "license: %s\n", known ? known : "other");
    if (*licence && !known) {
        fputs("license_name: ", out);
        card_yaml(out, "", licence);
        fputc('\n', out);
    }
    fputs("pipeline_tag: text-generation\ntags:\n", out);
    if (!is_fresh(r)) {
        fputs("- ", out);
        card_yaml(out, is_adapter(r) ? "base_model:adapter:" : "base_model:finetune:", base);
        fputc('\n', out);
    }
    if (is_adapter(r)) fputs("- lora\n", out);
    fputs("- ", out);
    card_yaml(out, "", r->trainer_component->name);
    fprintf(out, "\n- qfw\n---\n%s\n\n", mark);
}

static void put_title(const run *r, FILE *out) {
    fputs(is_adapter(r) ? "# LoRA adapter, " : "# Model, ", out);
    card_markdown(out, r->trainer_component->name);
    fputs(is_adapter(r) ? "\n\nA LoRA adapter for `base_model`, " : "\n\nAll weights, ", out);
    fputs(is_fresh(r) ? "trained from nothing" : "fine-tuned", out);
    fputs(" with qfw. `manifest.json` names everything that went in, by hash; `resolved.ini` holds "
          "every setting.\n\n",
        out);
}

/* --- tables --- */

static void open_table(const char *title, const char *left, const char *right, FILE *out) {
    fprintf(out, "## %s\n\n| %s | %s |\n|---|---|\n", title, left, right);
}

static void put_row(const char *left, const char *right, FILE *out) {
    if (!*right) return;
    fputs("| ", out);
    card_markdown(out, left);
    fputs(" | ", out);
    card_markdown(out, right);
    fputs(" |\n", out);
}

static void put_number(const char *left, double value, FILE *out) {
    char text[40];
    snprintf(text, sizeof text, "%.6g", value);
    put_row(left, text, out);
}

static void put_count(const char *left, uint64_t value, FILE *out) {
    char text[32];
    put_row(left, format_count(value, text), out);
}

/* --- recipe --- */

/* value NULL: no part of this run. The names of settings are no stranger's: code, so that "_" stays
 * as it is. */
static void put_setting(const char *section, const char *key, const char *value, FILE *out) {
    if (!value || !*value) return;
    fprintf(out, "| `%s.%s` | ", section, key);
    card_markdown(out, value);
    fputs(" |\n", out);
}

static void put_keys(const run *r, uint32_t section, const char *const *keys, FILE *out) {
    const qfw_cfg *c = run_cfg(r, section);
    for (; *keys; keys++) put_setting(c->section, *keys, cfg_text(c, *keys), out);
}

/* Everything that a plugin asks for is its recipe; but paths are of this machine. */
static void put_own(const run *r, uint32_t section, FILE *out) {
    const qfw_cfg *c = run_cfg(r, section);
    for (uint64_t i = 0; c && i < c->n; i++)
        if (c->options[i].type != QFW_OPT_PATH)
            put_setting(c->section, c->options[i].key, c->values[i].s, out);
}

static void put_recipe(const run *r, const progress *p, FILE *out) {
    static const char *const quantised[] = {
        "load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", NULL};
    static const char *const low_rank[] = {
        "r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", NULL};
    static const char *const data[] = {"max_length", "overlong", "packing", NULL};
    static const char *const trainer[] = {"per_device_train_batch_size",
        "gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "warmup_steps",
        "warmup_ratio", "max_grad_norm", "bf16", "fp16", NULL};
    static const char *const epochs[] = {"num_train_epochs", NULL};
    static const char *const optimizer[] = {"use", "weight_decay", "loraplus_lr_ratio", NULL};
    static const char *const seed[] = {"seed", NULL};
    open_table("Recipe", "setting", "value", out);
    put_setting("trainer", "use", r->trainer_component->name, out);
    if (cfg_int(run_cfg(r, SECTION_MODEL), "load_in_4bit"))
        put_keys(r, SECTION_MODEL, quantised, out);
    if (is_adapter(r)) put_keys(r, SECTION_ADAPTER, low_rank, out);
    put_setting("adapter", "path", leaf_of(text_of(r, SECTION_ADAPTER, "path")), out);
    put_keys(r, SECTION_DATA, data, out);
    if (cfg_int(run_cfg(r, SECTION_TRAINER), "max_steps") < 0)
        put_keys(r, SECTION_TRAINER, epochs, out);
    put_keys(r, SECTION_TRAINER, trainer, out);
    put_keys(r, SECTION_OPTIMIZER, optimizer, out);
    put_own(r, SECTION_TRAINER_OWN, out);
    put_own(r, SECTION_OPTIMIZER_OWN, out);
    put_keys(r, SECTION_RUN, seed, out);
    put_count("updates", p->step, out);
    put_count("tokens seen", p->num_tokens, out);
    fputc('\n', out);
}

/* --- data --- */

static void put_rows(const char *what, const char *path, const dataset *d, FILE *out) {
    const dataset_report *facts = dataset_facts(d);
    char name[64];
    put_row(what, leaf_of(path), out);
    snprintf(name, sizeof name, "%s rows", what);
    put_count(name, facts->rows, out);
    snprintf(name, sizeof name, "%s rows used", what);
    put_count(name, facts->kept, out);
    snprintf(name, sizeof name, "%s SHA-256", what);
    put_row(name, facts->sha256, out);
}

static void put_data(const run *r, FILE *out) {
    static const char *const notes[] = {"source", "generator", "licence", "notes"};
    open_table("Data", "what", "as the run had it", out);
    put_rows("train", text_of(r, SECTION_DATA, "train"), r->train, out);
    if (r->eval) put_rows("eval", text_of(r, SECTION_DATA, "eval"), r->eval, out);
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++) {
        const char *said = text_of(r, SECTION_DATA, notes[i]);
        put_row(notes[i], *said ? said : "not said", out);
    }
    fputc('\n', out);
}

/* --- metrics --- */

/* The evaluation that the weights are of: the best one where that is kept, else the last. */
static qfw_status find_eval(const char *log, size_t n, uint64_t best, qfw_doc **found) {
    for (const char *at = log, *end; at < log + n; at = end + 1) {
        qfw_doc *d = NULL;
        end = memchr(at, '\n', (size_t)(log + n - at));
        if (!end) break;
        if (strncmp(at, "{\"eval_", 7)) continue;
        QFW_TRY(json_parse(at, (size_t)(end - at), "trainer_log.jsonl", 0, "E_JSON", NULL, &d));
        const uint64_t step = (uint64_t)json_node_i64(json_node_member(json_root(d), "step"));
        if (best && step != best) {
            json_destroy(d);
            continue;
        }
        json_destroy(*found);
        *found = d;
    }
    return QFW_OK;
}

static int is_speed(const char *key) {
    static const char *const keys[] = {
        "eval_num_tokens", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(key, keys[i])) return 1;
    return strncmp(key, "eval_", 5) != 0;
}

static qfw_status put_eval(const run *r, const progress *p, const char *folder, FILE *out) {
    char *path = path_join(folder, "trainer_log.jsonl"), *log = NULL;
    qfw_doc *d = NULL;
    size_t n = 0;
    qfw_status status = path ? file_read(path, MAX_LOG_BYTES, &log, &n) : QFW_E_NOMEM;
    if (status == QFW_OK) status = find_eval(log, n, best_is_kept(r) ? p->best_step : 0, &d);
    const json_node *root = d ? json_root(d) : NULL;
    for (json_member m = json_first(root); m.key; m = json_next(root, m))
        if (!is_speed(m.key)) put_number(m.key, json_node_f64(m.value), out);
    if (d)
        put_count(
            "evaluated after update", (uint64_t)json_node_i64(json_node_member(root, "step")), out);
    json_destroy(d);
    mem_free(log);
    mem_free(path);
    return status;
}

static qfw_status put_metrics(const run *r, const progress *p, const char *folder, FILE *out) {
    open_table("Metrics", "metric", "value", out);
    put_number("loss of the first update", p->first_loss, out);
    put_number("loss of the last update", p->last_loss, out);
    QFW_TRY(put_eval(r, p, folder, out));
    fputs(
        "\nThe first two are of training batches. `trainer_log.jsonl` holds the curves.\n\n", out);
    return QFW_OK;
}

/* --- how to load it, and what for --- */

static void put_loading(const run *r, FILE *out) {
    const int is_4bit = (int)cfg_int(run_cfg(r, SECTION_MODEL), "load_in_4bit");
    const char *class = is_adapter(r) ? "AutoPeftModelForCausalLM" : "AutoModelForCausalLM";
    fputs("## Loading it\n\nWith `folder` the place of this file:\n\n```python\n", out);
    if (is_adapter(r)) fprintf(out, "from peft import %s\n", class);
    fprintf(out, "from transformers import AutoTokenizer%s%s\n\n",
        is_adapter(r) ? "" : ", AutoModelForCausalLM", is_4bit ? ", BitsAndBytesConfig" : "");
    fprintf(out, "model = %s.from_pretrained(folder", class);
    if (is_4bit)
        fprintf(out,
            ", quantization_config=BitsAndBytesConfig(\n    load_in_4bit=True, "
            "bnb_4bit_quant_type=\"%s\", bnb_4bit_use_double_quant=%s)",
            text_of(r, SECTION_MODEL, "bnb_4bit_quant_type"),
            cfg_int(run_cfg(r, SECTION_MODEL), "bnb_4bit_use_double_quant") ? "True" : "False");
    fputs(")\ntokenizer = AutoTokenizer.from_pretrained(folder)\n```\n\nIn an INI of qfw, for "
          "`task = generate`, `score` or `evaluate`:\n\n```ini\n",
        out);
    fputs(is_adapter(r) ? "[model]\npath = FOLDER_OF_THE_BASE_MODEL\n\n[adapter]\npath = "
                          "FOLDER_OF_THIS_FILE\n"
                        : "[model]\npath = FOLDER_OF_THIS_FILE\n",
        out);
    fputs("```\n\n", out);
}

static void put_limits(const run *r, FILE *out) {
    fputs("## Intended use and limits\n\nIt is meant for texts like those of its training rows, "
          "asked about in the same words. ",
        out);
    if (!is_fresh(r))
        fputs("What the base model gets wrong, it may get wrong, too, and the base model's licence "
              "still holds. ",
            out);
    fputs("It has learned the mistakes and the biases of its rows along with the rest. The numbers "
          "above are of these rows: of other texts, other languages and other tasks they say "
          "nothing, and nobody has tested here whether what it writes is safe or true.\n\nWhere it "
          "judges people, measure it first on people like them, skill by skill and group by group "
          "(`task = evaluate`), say that it is used, and leave the decision to a person who sees "
          "the text.\n",
        out);
}

/* --- the file --- */

static qfw_status put_card(const run *r, const progress *p, const char *folder, FILE *out) {
    put_front(r, out);
    put_title(r, out);
    put_recipe(r, p, out);
    put_data(r, out);
    QFW_TRY(put_metrics(r, p, folder, out));
    put_loading(r, out);
    put_limits(r, out);
    return QFW_OK;
}

/* A README.md that somebody else wrote. */
static int is_foreign(const char *path) {
    char *text = NULL;
    size_t n = 0;
    if (!file_exists(path)) return 0;
    const int is_ours = file_read(path, MAX_CARD_BYTES, &text, &n) == QFW_OK && strstr(text, mark);
    err_clear();
    mem_free(text);
    return !is_ours;
}

static qfw_status write_card(
    const run *r, const progress *p, const char *folder, const char *path) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f) return err_fail("E_MEM", QFW_E_NOMEM, "%s: no memory for the card", path);
    qfw_status status = put_card(r, p, folder, f);
    const int lost = ferror(f);
    if ((fclose(f) || lost) && status == QFW_OK)
        status = err_fail("E_MEM", QFW_E_NOMEM, "%s: no memory for the card", path);
    if (status == QFW_OK) status = file_write(path, text, n);
    free(text);
    return status;
}

int outputs_has_card(const run *r) {
    char *path = path_join(cfg_text(run_cfg(r, SECTION_RUN), "output_dir"), "README.md");
    const int has = path && file_exists(path) && !is_foreign(path);
    mem_free(path);
    return has;
}

qfw_status outputs_card(const run *r, const char *folder, const progress *p) {
    char *path = path_join(folder, "README.md");
    qfw_status status = path ? QFW_OK : QFW_E_NOMEM;
    if (path && is_foreign(path))
        log_line(QFW_LOG_WARN, "%s is not of qfw: it stays, and no model card is written", path);
    else if (path)
        status = write_card(r, p, folder, path);
    mem_free(path);
    return status;
}
