/* run.h -- one run: what the INI asks for, opened and checked, from the plugins to the last batch.
 *
 * Order of a run (run.c): settings from the INI; plugins; model, tokenizer and data (their errors
 * come before any weight is read); names and sizes of everything that lives on the device (weights,
 * adapters, gradients, optimizer state); graphs and their plans, printed; memory; weights; the loop
 * (step.c).
 */
#ifndef TRAIN_RUN_H
#define TRAIN_RUN_H

#include "base/option.h"
#include "files/safetensors.h"
#include "graph/exec.h"
#include "plugin/loader.h"
#include "qfw/optimizer.h"
#include "text/dataset.h"
#include "text/near.h"

/* How the command line asks for a run. */
typedef struct run_flags {
    const char *ini_path;
    const char *const *set; /* "section.key=value" */
    uint32_t n_set;
    uint32_t n_rows; /* training rows to show token by token; 0: one */
    int plan_only, dry_run, resume, profile;
    uint64_t process_bytes; /* what the process is said to hold before the run; 0: as measured */
} run_flags;

enum {
    SECTION_RUN,
    SECTION_BACKEND,
    SECTION_MODEL,
    SECTION_ADAPTER,
    SECTION_DATA,
    SECTION_TRAINER,
    SECTION_OPTIMIZER,
    SECTION_EXPORT,
    SECTION_GENERATE,
    SECTION_RUBRIC,
    SECTION_SCORE,
    SECTION_EVALUATE,
    SECTION_PAIRS,
    SECTION_PLUGINS,
    CORE_SECTIONS,
    SECTION_BACKEND_OWN = CORE_SECTIONS,
    SECTION_MODEL_OWN,
    SECTION_TRAINER_OWN,
    SECTION_OPTIMIZER_OWN,
    MAX_SECTIONS
};

/* One weight of the model. */
typedef struct model_weight {
    qfw_param_desc desc;
    store_entry *entry; /* of the weight it is tied to, where it is tied */
    uint32_t tied;      /* to weights[tied - 1]; 0: not tied */
} model_weight;

/* One tensor that is trained. */
typedef struct trainable {
    store_entry *param, *grad;
    store_entry *state[QFW_MAX_STATES];
    qfw_state_spec spec;
    qfw_opt_param info;
    uint32_t is_lora_b; /* loraplus_lr_ratio is for it */
} trainable;

typedef struct batch batch;     /* batch.h */
typedef struct judge judge;     /* judge.h */
typedef struct graphs graphs;   /* graphs.h */
typedef struct packing packing; /* packing.h */

typedef struct output_lock {
    int fd;     /* -1: not held */
    int is_new; /* the folder was not there */
} output_lock;

typedef struct run {
    run_flags flags;
    ini *ini;
    schema_section sections[MAX_SECTIONS];
    char section_names[MAX_SECTIONS][80];
    const qfw_host *host;
    uint64_t seed;
    uint32_t compute; /* QFW_F32, or what linears take and give: QFW_BF16, QFW_F16 */

    device dev;
    const qfw_component *backend, *model_component, *trainer_component, *optimizer_component;
    /* The files they are from; NULL: built in. */
    const plugin *backend_file, *model_file, *trainer_file, *optimizer_file;
    const qfw_model *model;
    const qfw_trainer *trainer;
    const qfw_optimizer *optimizer;
    qfw_inst *model_inst, *trainer_inst, *optimizer_inst;
    qfw_model_facts facts;
    qfw_doc *model_config;
    int is_bnb;     /* the checkpoint is quantised already (bnb.h) */
    st_file *files; /* the checkpoint, between weights_open and weights_load */

    tokenizer *tok;
    const chat_template *chat;    /* NULL: none that is known */
    chat_template *declared_chat; /* owned; NULL: it is one of ours */
    dataset *train, *eval;
    near_facts near; /* of the two */
    packing *units;  /* of train: what is counted as one of a batch */
    store *store;
    model_weight *weights;
    uint32_t n_weights;
    lora *loras; /* what is trained; then what a trainer's reference is made of */
    uint32_t n_loras, n_reference_loras;
    trainable *trainables;
    uint32_t n_trainables;
    graphs *graphs;
    const judge *judge; /* NULL: none */
    void *judge_inst;

    uint64_t steps_per_epoch, max_steps;                                   /* updates */
    uint32_t batch_size, eval_batch_size, accumulation, recompute, passes; /* fit.h */
    output_lock lock;                   /* of output_dir (outputs.h) */
    uint64_t length_cap, process_bytes; /* fit.h; what the process held when the plan was made */
} run;

static inline const qfw_cfg *run_cfg(const run *r, uint32_t section) {
    return r->sections[section].cfg;
}

/* Steps that every task begins with (serve/tasks.c says which tasks there are); the error is the
 * thread's (base/error.h). Settings and plugins; a failed one leaves NULL. */
qfw_status run_start(const run_flags *flags, run **opened);
/* Threads, seed, model and tokenizer. */
qfw_status run_open_model(run *r);
/* What [data] says of rows; the file and the trainer are the caller's. After run_open_model. */
dataset_opts run_dataset_opts(const run *r);
/* The device, and the names and sizes of weights and adapters on it. */
qfw_status run_open_device(run *r);
/* Memory and weights; or only the adapters', where the base's are read from its files. */
qfw_status run_load_weights(run *r);
qfw_status run_load_adapters(run *r);
void run_close(run *r); /* NULL is ignored */

/* The task `train`: everything up to the plan, printed to `out`; then memory and weights; then the
 * loop and what it leaves behind. */
qfw_status train_prepare(run *r, FILE *out);
qfw_status train_load(run *r);
qfw_status train_task(run *r, FILE *out);

/* options.c */
extern const schema_section core_schema[CORE_SECTIONS];
/* settings.c */
/* Read the INI, open the plugins it names, check every key, and what this build refuses by name. */
qfw_status settings_read(run *r);
int settings_exports(const run *r); /* [export] asks for something */

/* weights.c */
qfw_status weights_describe(run *r); /* r->weights from the model; r->facts */
qfw_status weights_declare(run *r);  /* store entries */
/* Host memory that weights_load takes, and gives back. After weights_declare. */
uint64_t weights_load_bytes(const run *r);
/* Open r->files and compare its names and shapes with the model's, before memory is taken. Fresh
 * weights need none. */
qfw_status weights_open(run *r);
qfw_status weights_load(run *r); /* from r->files, which it closes, or fresh */
/* After weights_open, before weights_load: a weight as the files have it, and its dtype there. */
qfw_status weights_read_rows(
    const run *r, const model_weight *w, int64_t row0, int64_t rows, float *out);
uint32_t weights_file_dtype(const run *r, const model_weight *w);

/* adapters.c */
qfw_status adapters_declare(run *r); /* r->loras with their entries */
/* A frozen copy of the adapter that [adapter] path names, for a trainer that needs a reference; of
 * a fresh adapter there is none: the reference is the bare model. */
qfw_status adapters_declare_reference(run *r);
qfw_status adapters_init(run *r); /* fresh, or from [adapter] path */

/* trainables.c */
qfw_status trainables_declare(run *r); /* gradients and optimizer state */
/* An optimizer that is part of qfw, by name; its keys stand in [optimizer] itself. NULL: there is
 * none. */
const qfw_component *optimizer_by_name(const char *name);
const qfw_component *optimizer_built_in(uint32_t i); /* NULL past the last */

/* schedule.c */
typedef struct schedule {
    const char *type;       /* lr_scheduler_type */
    double rate;            /* at its peak */
    double end, power;      /* of polynomial */
    double n_cycles;        /* of cosine_with_restarts, whole */
    uint64_t warmup, total; /* updates */
} schedule;
schedule schedule_of(const run *r); /* as [trainer] says; r->max_steps is known */
/* The learning rate at scheduler step `step` (0 for the first update) of `total`. */
double schedule_rate(const schedule *s, uint64_t step);

/* step.c */
typedef struct progress progress; /* progress.h */
/* From the place *p, whose tensors the checkpoint `from` holds, or from the beginning: NULL and a
 * *p of zeros. */
qfw_status train_loop(run *r, const char *from, progress *p);

#endif
