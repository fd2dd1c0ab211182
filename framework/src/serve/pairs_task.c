/* pairs_task.c -- questions in groups: samples for all of a group, then the reasons that are still
 * needed, then its rows.
 */
#include "serve/pairs_task.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"
#include "serve/evalset.h"
#include "serve/generate_task.h"
#include "serve/score_task.h"
#include "train/outputs.h"
#include "train/progress.h"

const qfw_option pairs_options[N_PAIRS_OPTIONS] = {
    QFW_OPTION(QFW_OPT_PATH, "set", "", 0, 0, NULL,
        "JSONL with id, text and expected scores; task = pairs needs it"),
    QFW_OPTION(QFW_OPT_INT, "samples", "4", 1, 64, NULL, "answers to each question"),
    QFW_OPTION(QFW_OPT_BOOL, "corruptions", "true", 0, 0, NULL,
        "where all samples are right, a wrong score is made up to be rejected; false: no pair "
        "then"),
    QFW_OPTION(
        QFW_OPT_INT, "max_new_tokens", "64", 1, 65536, NULL, "of an answer, its score included"),
};

enum { GROUP_QUESTIONS = 32 };

/* One side of a pair. */
typedef struct side {
    int32_t level;    /* index into the scale */
    int32_t sample;   /* which one it was; -1: made */
    double mean_logp; /* of the sample */
    char *reason;     /* mem_free */
} side;

/* One question: a document and a skill. */
typedef struct asked {
    const evalset_row *row;
    uint32_t skill;
    uint64_t number;
    ids prompt;
    side chosen, rejected;
    int drop; /* no pair comes of it */
} asked;

typedef struct pairing {
    run *r;
    FILE *out;
    rubric *rubric;
    score_opts o;
    evalset *set;
    engine *e;
    sampling s;
    int32_t stops[MAX_STOPS];
    uint32_t n_stops, samples;
    int64_t max_new;
    char adapter_sha256[65];
    asked group[GROUP_QUESTIONS];
    size_t n_group;
    generation *g; /* samples of a group; then its reasons, at most two a question */
    int32_t *tokens;
    ids *prompts; /* of the reasons */
    file_out *file;
    uint64_t n_questions, n_settled; /* asked; of whole groups */
    uint64_t n_pairs, n_dropped, n_long, n_made_chosen, n_made_rejected;
} pairing;

static int is_right(const pairing *k, const asked *q, int32_t level) {
    const int32_t score = rubric_scale(k->rubric).low + level;
    return score >= q->row->expected[q->skill].low && score <= q->row->expected[q->skill].high;
}

/* --- answers --- */

static void prepare(pairing *k, size_t i, const ids *prompt, uint64_t key) {
    k->g[i] = (generation){.prompt = prompt->id,
        .n_prompt = (int64_t)prompt->n,
        .key = key,
        .max_new = k->max_new,
        .tokens = k->tokens + (int64_t)i * k->max_new};
}

static char *text_of(const pairing *k, const generation *g) {
    char *text = NULL;
    size_t n = 0;
    return tokenizer_decode(k->r->tok, g->tokens, (size_t)g->n_tokens, 1, &text, &n) == QFW_OK
               ? text
               : NULL;
}

/* The level that an answer's first token says; -1: none. */
static int32_t level_of(const pairing *k, const asked *q, const generation *g) {
    for (uint32_t i = 0; i < rubric_scale(k->rubric).n_levels; i++)
        if (g->n_tokens && g->tokens[0] == rubric_level(k->rubric, q->skill, i)) return (int32_t)i;
    return -1;
}

/* Take an answer as a side of the pair if it is more probable than what is there. */
static qfw_status offer(const pairing *k, asked *q, const generation *g, int32_t sample) {
    const int32_t level = level_of(k, q, g);
    if (level < 0 || !g->stopped) return QFW_OK;
    side *to = is_right(k, q, level) ? &q->chosen : &q->rejected;
    if (to->reason && to->mean_logp >= g->mean_logp) return QFW_OK;
    char *text = text_of(k, g);
    if (!text) return QFW_E_NOMEM;
    const char *reason = rubric_reason(k->rubric, (uint32_t)level, text);
    qfw_status status = QFW_OK;
    if (reason) {
        mem_free(to->reason);
        *to = (side){level, sample, g->mean_logp, mem_strdup(reason)};
        status = to->reason ? QFW_OK : QFW_E_NOMEM;
    }
    mem_free(text);
    return status;
}

static qfw_status sample_group(pairing *k) {
    size_t n = 0;
    for (size_t i = 0; i < k->n_group; i++)
        for (uint32_t s = 0; s < k->samples; s++)
            prepare(k, n++, &k->group[i].prompt, k->group[i].number * k->samples + s);
    QFW_TRY(generate_all(k->e, &k->s, k->stops, k->n_stops, k->g, n));
    for (size_t i = 0; i < n; i++)
        QFW_TRY(offer(k, &k->group[i / k->samples], &k->g[i], (int32_t)(i % k->samples)));
    return QFW_OK;
}

/* --- sides that no sample gave --- */

/* The level of low .. high that is nearest to `from`. */
static int32_t nearest_right(const pairing *k, const asked *q, int32_t from) {
    const int32_t low = q->row->expected[q->skill].low - rubric_scale(k->rubric).low;
    const int32_t high = q->row->expected[q->skill].high - rubric_scale(k->rubric).low;
    return from < low ? low : from > high ? high : from;
}

/* The level next to the expected range: above and below in turn. -1: all levels are right. */
static int32_t next_wrong(const pairing *k, const asked *q) {
    const int32_t low = q->row->expected[q->skill].low - rubric_scale(k->rubric).low;
    const int32_t high = q->row->expected[q->skill].high - rubric_scale(k->rubric).low;
    const int above = high + 1 < (int32_t)rubric_scale(k->rubric).n_levels, below = low > 0;
    if (!above && !below) return -1;
    return above && (!below || q->number % 2) ? high + 1 : low - 1;
}

static void choose_made(const pairing *k, asked *q) {
    const int corrupts = cfg_int(run_cfg(k->r, SECTION_PAIRS), "corruptions") != 0;
    if (!q->chosen.reason)
        q->chosen =
            (side){nearest_right(k, q, q->rejected.reason ? q->rejected.level : 0), -1, 0, NULL};
    if (!q->rejected.reason) q->rejected = (side){corrupts ? next_wrong(k, q) : -1, -1, 0, NULL};
    q->drop = q->rejected.level < 0;
}

/* Ask for the reason of a level that no sample said; *n grows. */
static qfw_status ask_reason(pairing *k, asked *q, side *s, size_t *n) {
    if (q->drop || s->reason) return QFW_OK;
    if (!rubric_has_reason(k->rubric)) {
        s->reason = mem_strdup("");
        return s->reason ? QFW_OK : QFW_E_NOMEM;
    }
    ids *prompt = &k->prompts[*n];
    QFW_TRY(rubric_ask_reason(
        k->rubric, q->skill, (uint32_t)s->level, q->row->text, strlen(q->row->text), prompt));
    prepare(k, (*n)++, prompt, 0);
    return QFW_OK;
}

static qfw_status take_reason(pairing *k, asked *q, side *s, size_t *n) {
    if (q->drop || s->reason) return QFW_OK;
    char *text = text_of(k, &k->g[(*n)++]);
    if (!text) return QFW_E_NOMEM;
    s->reason = mem_strdup(text + strspn(text, " "));
    mem_free(text);
    return s->reason ? QFW_OK : QFW_E_NOMEM;
}

static qfw_status complete_group(pairing *k) {
    static const sampling greedy = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    size_t n = 0, at = 0;
    for (size_t i = 0; i < k->n_group; i++) {
        asked *q = &k->group[i];
        choose_made(k, q);
        QFW_TRY(ask_reason(k, q, &q->chosen, &n));
        QFW_TRY(ask_reason(k, q, &q->rejected, &n));
    }
    QFW_TRY(generate_all(k->e, &greedy, k->stops, k->n_stops, k->g, n));
    for (size_t i = 0; i < k->n_group; i++) {
        QFW_TRY(take_reason(k, &k->group[i], &k->group[i].chosen, &at));
        QFW_TRY(take_reason(k, &k->group[i], &k->group[i].rejected, &at));
    }
    return QFW_OK;
}

/* --- rows --- */

static void say_text(const pairing *k, const char *key, const char *role, char *text, json_out *o) {
    if (!rubric_says(k->rubric)->chat) {
        json_str(o, key, text);
    } else {
        json_open(o, key, '[');
        json_open(o, NULL, '{');
        json_str(o, "role", role);
        json_str(o, "content", text + strspn(text, " "));
        json_close(o);
        json_close(o);
    }
    mem_free(text);
}

static void say_side(const char *key, const char *made, const side *s, int32_t low, json_out *o) {
    json_open(o, key, '{');
    json_int(o, "score", low + s->level);
    json_str(o, "from", s->sample < 0 ? made : "sample");
    if (s->sample >= 0) {
        json_int(o, "sample", s->sample);
        json_float(o, "mean_logprob", s->mean_logp);
    }
    json_close(o);
}

static void say_provenance(const pairing *k, const asked *q, json_out *o) {
    const int32_t low = rubric_scale(k->rubric).low;
    json_open(o, "provenance", '{');
    json_str(o, "document", q->row->id);
    json_str(o, "skill", rubric_skill(k->rubric, q->skill));
    json_open(o, "expected", '[');
    json_int(o, NULL, q->row->expected[q->skill].low);
    json_int(o, NULL, q->row->expected[q->skill].high);
    json_close(o);
    say_side("chosen", "correction", &q->chosen, low, o);
    say_side("rejected", "corruption", &q->rejected, low, o);
    json_str(o, "model", cfg_text(run_cfg(k->r, SECTION_MODEL), "path"));
    json_str(o, "adapter", cfg_text(run_cfg(k->r, SECTION_ADAPTER), "path"));
    json_str(o, "adapter_sha256", k->adapter_sha256);
    json_int(o, "samples", k->samples);
    json_float(o, "temperature", k->s.temperature);
    json_int(o, "top_k", k->s.top_k);
    json_float(o, "top_p", k->s.top_p);
    json_int(o, "seed", (int64_t)k->s.seed);
    json_close(o);
}

static qfw_status write_pair(pairing *k, const asked *q) {
    const rubric *r = k->rubric;
    json_out *o = json_out_create(0);
    size_t n = 0;
    char *prompt = rubric_prompt(r, q->skill, q->row->text, strlen(q->row->text));
    char *chosen = rubric_answer(r, (uint32_t)q->chosen.level, q->chosen.reason);
    char *rejected = rubric_answer(r, (uint32_t)q->rejected.level, q->rejected.reason);
    const int whole = prompt && chosen && rejected;
    json_open(o, NULL, '{');
    say_text(k, "prompt", "user", prompt ? prompt : mem_strdup(""), o);
    say_text(k, "chosen", "assistant", chosen ? chosen : mem_strdup(""), o);
    say_text(k, "rejected", "assistant", rejected ? rejected : mem_strdup(""), o);
    say_provenance(k, q, o);
    json_close(o);
    const char *text = whole ? json_out_text(o, &n) : NULL;
    qfw_status status = text ? file_out_write(k->file, text, n) : QFW_E_NOMEM;
    if (status == QFW_OK) status = file_out_write(k->file, "\n", 1);
    json_out_destroy(o);
    return status;
}

static void clear_group(pairing *k) {
    for (size_t i = 0; i < k->n_group; i++) {
        ids_free(&k->group[i].prompt);
        mem_free(k->group[i].chosen.reason);
        mem_free(k->group[i].rejected.reason);
        k->group[i] = (asked){.row = NULL};
    }
    k->n_group = 0;
}

static qfw_status run_group(pairing *k) {
    char status[96];
    if (!k->n_group) return QFW_OK;
    QFW_TRY(sample_group(k));
    QFW_TRY(complete_group(k));
    for (size_t i = 0; i < k->n_group; i++) {
        const asked *q = &k->group[i];
        k->n_dropped += (uint64_t)q->drop;
        if (q->drop) continue;
        QFW_TRY(write_pair(k, q));
        k->n_pairs++;
        k->n_made_chosen += q->chosen.sample < 0;
        k->n_made_rejected += q->rejected.sample < 0;
    }
    k->n_settled += k->n_group;
    clear_group(k);
    snprintf(status, sizeof status, "%llu questions, %llu pairs",
        (unsigned long long)k->n_questions, (unsigned long long)k->n_pairs);
    log_status(status);
    return QFW_OK;
}

static qfw_status ask(pairing *k, const evalset_row *row, uint32_t skill) {
    asked *q = &k->group[k->n_group];
    *q = (asked){.row = row, .skill = skill, .number = k->n_questions};
    k->n_group++;
    QFW_TRY(rubric_ask(k->rubric, skill, row->text, strlen(row->text), &q->prompt));
    if ((int64_t)q->prompt.n + k->max_new > k->o.max_length) {
        ids_free(&q->prompt);
        k->n_group--;
        k->n_long++;
        return QFW_OK;
    }
    k->n_questions++;
    return k->n_group == GROUP_QUESTIONS ? run_group(k) : QFW_OK;
}

static qfw_status ask_all(pairing *k) {
    for (size_t i = 0; i < k->set->n_rows; i++)
        for (uint32_t s = 0; s < rubric_skills(k->rubric); s++)
            if (k->set->rows[i].expected[s].given) QFW_TRY(ask(k, &k->set->rows[i], s));
    return run_group(k);
}

/* --- the task --- */

static qfw_status open_all(pairing *k) {
    run *r = k->r;
    const qfw_cfg *c = run_cfg(r, SECTION_PAIRS);
    const char *skills[MAX_SKILLS];
    QFW_TRY(run_open_model(r));
    QFW_TRY(rubric_read(r->ini, run_cfg(r, SECTION_RUBRIC), r->tok, r->chat, &k->rubric));
    for (uint32_t i = 0; i < rubric_skills(k->rubric); i++) skills[i] = rubric_skill(k->rubric, i);
    k->o = score_settings(r, k->rubric);
    k->samples = (uint32_t)cfg_int(c, "samples");
    k->max_new = cfg_int(c, "max_new_tokens");
    k->s = sampling_read(r);
    QFW_TRY(stops_read(r, k->stops, &k->n_stops));
    return evalset_read(cfg_text(c, "set"), (uint64_t)cfg_int(run_cfg(r, SECTION_DATA), "max_line"),
        skills, rubric_skills(k->rubric), rubric_scale(k->rubric), &k->set);
}

static qfw_status plan_all(pairing *k) {
    engine_opts o = score_engine(&k->o);
    o.n_slots = (uint32_t)cfg_int(run_cfg(k->r, SECTION_GENERATE), "per_device_batch_size");
    QFW_TRY(run_open_device(k->r));
    QFW_TRY(engine_plan(k->r, &o, &k->e));
    return serve_plan(k->r, k->e, k->out);
}

static qfw_status take_room(pairing *k) {
    const size_t most = GROUP_QUESTIONS * (k->samples > 2 ? (size_t)k->samples : 2);
    k->g = mem_alloc(most, sizeof *k->g);
    k->tokens = mem_alloc(most * (size_t)k->max_new, sizeof *k->tokens);
    k->prompts = mem_alloc(2 * GROUP_QUESTIONS, sizeof *k->prompts);
    return k->g && k->tokens && k->prompts ? QFW_OK : QFW_E_NOMEM;
}

static qfw_status hash_adapter(pairing *k) {
    const char *folder = cfg_text(run_cfg(k->r, SECTION_ADAPTER), "path");
    if (!*folder) return QFW_OK;
    char *path = path_join(folder, "adapter_model.safetensors");
    const qfw_status status = path ? file_sha256(path, k->adapter_sha256) : QFW_E_NOMEM;
    mem_free(path);
    return status;
}

static void print_summary(const pairing *k, const char *path, double seconds) {
    char pairs[32], questions[32], spent[32];
    fprintf(k->out, "\nDone: %s pairs of %s questions in %s\n", format_count(k->n_pairs, pairs),
        format_count(k->n_questions, questions), format_time(seconds, spent));
    fprintf(k->out, "  chosen     %llu from the model's answers, %llu corrected\n",
        (unsigned long long)(k->n_pairs - k->n_made_chosen), (unsigned long long)k->n_made_chosen);
    fprintf(k->out, "  rejected   %llu from the model's answers, %llu corrupted\n",
        (unsigned long long)(k->n_pairs - k->n_made_rejected),
        (unsigned long long)k->n_made_rejected);
    if (k->n_dropped || k->n_long)
        fprintf(k->out, "  no pair    %llu questions without a wrong answer, %llu too long\n",
            (unsigned long long)k->n_dropped, (unsigned long long)k->n_long);
    fprintf(k->out, "  written to %s: read it, correct it, then train on it\n", path);
}

static const output_mark output_marks[] = {
    {"pairs.jsonl", "pairs", 1}, {"trainer_log.jsonl", "a training run", 0}, {NULL, NULL, 0}};
static const output_kind pairs_output = {output_marks, 0, 0};

static qfw_status write_all(pairing *k) {
    const char *folder = cfg_text(run_cfg(k->r, SECTION_RUN), "output_dir");
    QFW_TRY(output_claim(k->r, &pairs_output));
    QFW_TRY(hash_adapter(k));
    QFW_TRY(take_room(k));
    QFW_TRY(serve_load(k->r, k->e));
    char *path = path_join(folder, "pairs.jsonl");
    const uint64_t began = clock_ns();
    qfw_status status = path ? file_out_open(path, &k->file) : QFW_E_NOMEM;
    if (status == QFW_OK) status = ask_all(k);
    log_status(NULL);
    const int is_stopped = status == QFW_E_CANCELLED && k->n_pairs > 0;
    if (status == QFW_OK || is_stopped)
        status = file_out_finish(k->file);
    else
        file_out_abort(k->file);
    if (status == QFW_OK) status = outputs_resolved(k->r, folder);
    if (status == QFW_OK && !is_stopped)
        print_summary(k, path, (double)(clock_ns() - began) * 1e-9);
    mem_free(path);
    if (status == QFW_OK && is_stopped)
        status = err_fail("E_SIGNAL", QFW_E_CANCELLED,
            "stopped after %llu questions, whose %llu pairs are written; hint: the same command "
            "with --set run.overwrite_output_dir=true begins anew",
            (unsigned long long)k->n_settled, (unsigned long long)k->n_pairs);
    return status;
}

qfw_status pairs_task(run *r, FILE *out) {
    pairing k = {.r = r, .out = out};
    qfw_status status = open_all(&k);
    if (status == QFW_OK) status = plan_all(&k);
    if (status == QFW_OK && !r->flags.plan_only)
        status = r->flags.dry_run ? output_check(r, &pairs_output) : write_all(&k);
    clear_group(&k);
    for (size_t i = 0; i < 2 * GROUP_QUESTIONS && k.prompts; i++) ids_free(&k.prompts[i]);
    mem_free(k.prompts);
    mem_free(k.g);
    mem_free(k.tokens);
    engine_destroy(k.e);
    evalset_close(k.set);
    rubric_destroy(k.rubric);
    return status;
}
