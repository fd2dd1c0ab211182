/* options.c -- the core's own sections of the INI: each key with type, range, default and help.
 *
 * Section and key names are those of the Hugging Face stack, defaults too unless the help says
 * otherwise. `qfw help`, docs/ini.md and resolved.ini are made from these tables.
 */
#include "serve/evaluate_task.h"
#include "serve/pairs_task.h"
#include "serve/rubric.h"
#include "serve/score.h"
#include "train/run.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define MILLION      1e6

static const qfw_option run_options[] = {
    QFW_OPTION(QFW_OPT_ENUM, "task", "train", 0, 0, "train|generate|score|evaluate|pairs|export",
        "what to do"),
    QFW_OPTION_FLAGS(QFW_OPT_PATH, QFW_OPT_REQUIRED, "output_dir", NULL, 0, 0, NULL,
        "where everything is written"),
    QFW_OPTION(QFW_OPT_BOOL, "overwrite_output_dir", "false", 0, 0, NULL,
        "start over in an output_dir that holds a run"),
    QFW_OPTION(QFW_OPT_INT, "seed", "42", 0, 4294967295.0, NULL,
        "of the order of rows, dropout, and fresh weights"),
    QFW_OPTION(QFW_OPT_INT, "threads", "0", 0, QFW_MAX_WORKERS, NULL, "0: all cores"),
    QFW_OPTION(QFW_OPT_BYTES, "max_memory", "auto", 0, 0, NULL,
        "the plan must fit into it; auto: what is free"),
    QFW_OPTION(QFW_OPT_STR, "resume_from_checkpoint", "none", 0, 0, NULL,
        "none, auto (the newest that verifies), or a folder"),
};
static const qfw_option backend_options[] = {
    QFW_OPTION(QFW_OPT_STR, "use", "auto", 0, 0, NULL, "auto, a backend's name, or a file"),
    QFW_OPTION(QFW_OPT_ENUM, "fallback", "warn", 0, 0, "allow|warn|error",
        "what happens to ops that the backend lacks"),
};
static const qfw_option model_options[] = {
    QFW_OPTION(QFW_OPT_STR, "use", "phi3", 0, 0, NULL, "a model plugin's name or file"),
    QFW_OPTION_FLAGS(
        QFW_OPT_PATH, QFW_OPT_REQUIRED, "path", NULL, 0, 0, NULL, "a Hugging Face model folder"),
    QFW_OPTION(QFW_OPT_ENUM, "init", "pretrained", 0, 0, "pretrained|random",
        "random: fresh weights, only config and tokenizer are read"),
    QFW_OPTION(QFW_OPT_BOOL, "load_in_4bit", "false", 0, 0, NULL, "quantise the linears at load"),
    QFW_OPTION(QFW_OPT_ENUM, "bnb_4bit_quant_type", "fp4", 0, 0, "fp4|nf4", "the 4-bit code"),
    QFW_OPTION(
        QFW_OPT_BOOL, "bnb_4bit_use_double_quant", "false", 0, 0, NULL, "quantise the scales too"),
    QFW_OPTION(QFW_OPT_ENUM, "bnb_4bit_compute_dtype", "float32", 0, 0, "float32|bfloat16|float16",
        "what 4-bit weights are decoded to: float32, or the dtype of [trainer] bf16 or fp16"),
    QFW_OPTION(QFW_OPT_ENUM, "nested_codes", "nearest", 0, 0, "nearest|cpu_table",
        "double quantisation's rounding: exact, or bitsandbytes' table on a CPU"),
};
static const qfw_option adapter_options[] = {
    QFW_OPTION(QFW_OPT_ENUM, "use", "lora", 0, 0, "lora|none", "none: train all weights"),
    QFW_OPTION(QFW_OPT_PATH, "path", "", 0, 0, NULL,
        "start from this PEFT folder, which decides r, lora_alpha, use_rslora, target_modules"),
    QFW_OPTION(QFW_OPT_INT, "r", "8", 1, 4096, NULL, "rank"),
    QFW_OPTION(QFW_OPT_FLOAT, "lora_alpha", "8", 1e-6, MILLION, NULL, "scale is lora_alpha / r"),
    QFW_OPTION(QFW_OPT_FLOAT, "lora_dropout", "0", 0, 0.99, NULL, "on the adapter's input"),
    QFW_OPTION(QFW_OPT_BOOL, "use_rslora", "false", 0, 0, NULL, "scale is lora_alpha / sqrt(r)"),
    QFW_OPTION(QFW_OPT_LIST, "target_modules", "all-linear", 0, 0, NULL,
        "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, fused names, or "
        "all-linear"),
};
static const qfw_option data_options[] = {
    QFW_OPTION(
        QFW_OPT_PATH, "train", "", 0, 0, NULL, "JSONL, one row a line; task = train needs it"),
    QFW_OPTION(QFW_OPT_PATH, "eval", "", 0, 0, NULL, "JSONL; with eval_strategy"),
    QFW_OPTION(QFW_OPT_INT, "max_length", "1024", 2, 1 << 24, NULL, "tokens a sequence"),
    QFW_OPTION(QFW_OPT_ENUM, "overlong", "error", 0, 0, "error|truncate|drop",
        "what happens to longer rows; truncation keeps the EOS"),
    QFW_OPTION(QFW_OPT_ENUM, "untrained", "error", 0, 0, "error|drop",
        "what happens to rows in which no token is trained"),
    QFW_OPTION(QFW_OPT_ENUM, "on_error", "error", 0, 0, "error|skip",
        "what happens to rows that are wrong; those left out are named and counted"),
    QFW_OPTION(QFW_OPT_INT, "max_errors", "100", 0, 1e9, NULL,
        "of on_error = skip: more of them a file are an error"),
    QFW_OPTION(QFW_OPT_FLOAT, "near_duplicate", "0.8", 0, 1, NULL,
        "rows whose five-word shingles have at least this Jaccard index say nearly the same; 0: "
        "such "
        "rows are not looked for"),
    QFW_OPTION(QFW_OPT_FLOAT, "max_near_duplicates", "1", 0, 1, NULL,
        "share of the rows of train that may say nearly what an earlier one says"),
    QFW_OPTION(QFW_OPT_FLOAT, "max_leakage", "1", 0, 1, NULL,
        "share of the rows of eval that may say nearly what one of train says"),
    QFW_OPTION(QFW_OPT_BOOL, "packing", "false", 0, 0, NULL,
        "true: rows share units of max_length tokens, by best fit; batches count units"),
    QFW_OPTION(QFW_OPT_BOOL, "share_prefix", "false", 0, 0, NULL,
        "rows of a batch that begin with the same untrained tokens compute them once"),
    QFW_OPTION(QFW_OPT_ENUM, "train_sampling_strategy", "random", 0, 0, "random|sequential",
        "random: torch's permutation, anew each epoch"),
    QFW_OPTION(QFW_OPT_ENUM, "chat_template", "auto", 0, 0,
        "auto|phi3-mini|phi3-medium|phi3-april|phi3.5|phi4|phi4-mini|declared",
        "auto: by the tokenizer's own template; declared: by the keys chat_*"),
    QFW_OPTION(QFW_OPT_STR, "chat_start", "", 0, 0, NULL,
        "of chat_template = declared: what begins a conversation; \\n \\t \\s \\\\ are escapes"),
    QFW_OPTION(QFW_OPT_STR, "chat_system", "", 0, 0, NULL,
        "a system turn, {content} in it; empty: the template has none"),
    QFW_OPTION(QFW_OPT_STR, "chat_user", "", 0, 0, NULL, "a user turn, {content} in it"),
    QFW_OPTION(QFW_OPT_STR, "chat_assistant", "", 0, 0, NULL,
        "an assistant turn, {content} in it; that and what follows is what is trained"),
    QFW_OPTION(QFW_OPT_STR, "chat_prompt", "", 0, 0, NULL, "what invites the assistant to answer"),
    QFW_OPTION(QFW_OPT_STR, "chat_end", "", 0, 0, NULL,
        "what ends a conversation that is not to be continued"),
    QFW_OPTION(QFW_OPT_ENUM, "system_turn", "error", 0, 0, "error|fold",
        "a system turn where the template has none: refused, or put into the user turn"),
    QFW_OPTION(QFW_OPT_BOOL, "special_tokens_in_content", "false", 0, 0, NULL,
        "special tokens typed inside a message's content count as such"),
    QFW_OPTION(QFW_OPT_BYTES, "max_line", "16MiB", 0, 0, NULL, "longest line of a data file"),
    QFW_OPTION(
        QFW_OPT_STR, "source", "", 0, 0, NULL, "provenance, for the manifest and the model card"),
    QFW_OPTION(QFW_OPT_STR, "generator", "", 0, 0, NULL,
        "provenance, for the manifest and the model card"),
    QFW_OPTION(
        QFW_OPT_STR, "licence", "", 0, 0, NULL, "provenance, for the manifest and the model card"),
    QFW_OPTION(
        QFW_OPT_STR, "notes", "", 0, 0, NULL, "provenance, for the manifest and the model card"),
};
static const qfw_option trainer_options[] = {
    QFW_OPTION(QFW_OPT_STR, "use", "sft", 0, 0, NULL, "a trainer plugin's name or file"),
    QFW_OPTION_FLAGS(
        QFW_OPT_FLOAT, QFW_OPT_LO_OPEN, "num_train_epochs", "3", 0, 1e6, NULL, "may be a fraction"),
    QFW_OPTION(QFW_OPT_INT, "max_steps", "-1", -1, 1e12, NULL, "updates; -1: by epochs"),
    QFW_OPTION(QFW_OPT_INT, "per_device_train_batch_size", "8", 1, 65536, NULL, "rows a pass"),
    QFW_OPTION(QFW_OPT_INT, "per_device_eval_batch_size", "8", 1, 65536, NULL, "rows a pass"),
    QFW_OPTION(QFW_OPT_INT, "gradient_accumulation_steps", "1", 1, 65536, NULL, "passes an update"),
    QFW_OPTION(QFW_OPT_ENUM, "gradient_checkpointing", "auto", 0, 0,
        "auto|full|selective|none|true|false",
        "what the backward computes again. full (true): all but layer inputs; selective: what is "
        "cheap and the largest product; none (false): nothing; auto: least that fits"),
    QFW_OPTION(QFW_OPT_FLOAT, "learning_rate", "2e-5", 0, 1e3, NULL, "at its peak"),
    QFW_OPTION(QFW_OPT_ENUM, "lr_scheduler_type", "linear", 0, 0,
        "linear|cosine|cosine_with_restarts|polynomial|constant|constant_with_warmup",
        "as in transformers"),
    QFW_OPTION(QFW_OPT_INT, "lr_num_cycles", "1", 1, 1e6, NULL, "of cosine_with_restarts"),
    QFW_OPTION_FLAGS(QFW_OPT_FLOAT, QFW_OPT_LO_OPEN, "lr_power", "1", 0, 1e3, NULL,
        "of polynomial; 1: a straight line"),
    QFW_OPTION(QFW_OPT_FLOAT, "lr_end", "1e-7", 0, 1e3, NULL, "of polynomial: its last rate"),
    QFW_OPTION(QFW_OPT_INT, "warmup_steps", "0", 0, 1e12, NULL, "updates"),
    QFW_OPTION(QFW_OPT_FLOAT, "warmup_ratio", "0", 0, 1, NULL, "or a share of all updates"),
    QFW_OPTION(QFW_OPT_FLOAT, "max_grad_norm", "1", 0, 1e12, NULL, "0: no clipping"),
    QFW_OPTION(QFW_OPT_FLOAT, "neftune_noise_alpha", "0", 0, 1e6, NULL,
        "noise on the embeddings while training; 0: none"),
    QFW_OPTION(QFW_OPT_BOOL, "bf16", "false", 0, 0, NULL,
        "activations and frozen weights in bf16; adapters and optimizer stay fp32; of every task"),
    QFW_OPTION(QFW_OPT_BOOL, "fp16", "false", 0, 0, NULL,
        "linears and attention in fp16, residual stream and norms in fp32, the loss scaled"),
    QFW_OPTION(QFW_OPT_INT, "logging_steps", "10", 1, 1e12, NULL, "updates"),
    QFW_OPTION(QFW_OPT_ENUM, "eval_strategy", "no", 0, 0, "no|steps|epoch",
        "steps: every eval_steps; epoch: after each"),
    QFW_OPTION(QFW_OPT_BOOL, "eval_on_start", "false", 0, 0, NULL,
        "evaluate before the first update, too"),
    QFW_OPTION(QFW_OPT_INT, "eval_steps", "0", 0, 1e12, NULL, "0: as logging_steps"),
    QFW_OPTION(QFW_OPT_ENUM, "save_strategy", "steps", 0, 0, "no|steps|epoch",
        "checkpoints: every save_steps, or after each epoch"),
    QFW_OPTION(QFW_OPT_INT, "save_steps", "500", 1, 1e12, NULL, "updates"),
    QFW_OPTION(QFW_OPT_INT, "save_total_limit", "0", 0, 1e6, NULL,
        "newest checkpoints kept (at least 2); 0: all"),
    QFW_OPTION(QFW_OPT_BOOL, "load_best_model_at_end", "false", 0, 0, NULL,
        "keep the checkpoint of the best evaluation, and write its weights in the end"),
    QFW_OPTION(QFW_OPT_STR, "metric_for_best_model", "auto", 0, 0, NULL,
        "loss, a metric of the trainer, or with [evaluate] set: in_range, mae, kappa, brier; auto: "
        "the first of loss and in_range that there is"),
    QFW_OPTION(QFW_OPT_ENUM, "greater_is_better", "auto", 0, 0, "auto|true|false",
        "auto: false for loss, mae and brier"),
    QFW_OPTION(QFW_OPT_INT, "early_stopping_patience", "0", 0, 1e6, NULL,
        "evaluations without a gain after which the run ends; 0: it does not"),
    QFW_OPTION(QFW_OPT_FLOAT, "early_stopping_threshold", "0", 0, 1e12, NULL,
        "what counts as a gain there must be above it"),
    QFW_OPTION(QFW_OPT_ENUM, "report_to", "none", 0, 0, "none|tensorboard",
        "tensorboard: event files in output_dir/runs, besides trainer_log.jsonl"),
};
static const qfw_option optimizer_options[] = {
    QFW_OPTION(
        QFW_OPT_STR, "use", "adamw", 0, 0, NULL, "adamw, adamw_8bit, or an optimizer plugin"),
    QFW_OPTION_FLAGS(QFW_OPT_FLOAT, QFW_OPT_LO_OPEN, "loraplus_lr_ratio", "1", 0, 1e6, NULL,
        "LoRA+: the rate of the B matrices is that many times learning_rate"),
    QFW_OPTION(QFW_OPT_FLOAT, "weight_decay", "0", 0, 1e3, NULL, "decoupled; not on norms"),
    QFW_OPTION(QFW_OPT_FLOAT, "adam_beta1", "0.9", 0, 0.9999999, NULL, "of the mean"),
    QFW_OPTION(QFW_OPT_FLOAT, "adam_beta2", "0.999", 0, 0.9999999, NULL, "of the square"),
    QFW_OPTION(QFW_OPT_FLOAT, "adam_epsilon", "1e-8", 0, 1, NULL, "beside the root"),
};
static const qfw_option export_options[] = {
    QFW_OPTION(QFW_OPT_ENUM, "merged", "none", 0, 0, "none|requant|dequant|base16",
        "base and adapter as one model. base16: on the base as it is on disk; dequant: on the base "
        "as it "
        "was quantised for training; requant: that, quantised again"),
    QFW_OPTION(QFW_OPT_ENUM, "gguf", "none", 0, 0, "none|f16|q8_0",
        "the same as one file for llama.cpp; of base16 where merged is none"),
    QFW_OPTION(QFW_OPT_BOOL, "gguf_adapter", "false", 0, 0, NULL,
        "the adapter alone as a file for llama.cpp"),
};
static const qfw_option generate_options[] = {
    QFW_OPTION(QFW_OPT_PATH, "input", "", 0, 0, NULL,
        "JSONL with prompt (text or messages) or messages; task = generate needs it"),
    QFW_OPTION(QFW_OPT_INT, "max_new_tokens", "256", 1, 1 << 20, NULL, "a row at most"),
    QFW_OPTION(QFW_OPT_BOOL, "do_sample", "false", 0, 0, NULL, "false: greedy"),
    QFW_OPTION_FLAGS(
        QFW_OPT_FLOAT, QFW_OPT_LO_OPEN, "temperature", "1", 0, 1e3, NULL, "divides the logits"),
    QFW_OPTION(QFW_OPT_INT, "top_k", "50", 0, 1 << 20, NULL, "the most probable ones; 0: all"),
    QFW_OPTION_FLAGS(QFW_OPT_FLOAT, QFW_OPT_LO_OPEN, "top_p", "1", 0, 1, NULL,
        "the fewest that hold this probability together"),
    QFW_OPTION_FLAGS(QFW_OPT_FLOAT, QFW_OPT_LO_OPEN, "repetition_penalty", "1", 0, 1e3, NULL,
        "of tokens that stand in the sequence; 1: none"),
    QFW_OPTION(QFW_OPT_LIST, "stop_tokens", "", 0, 0, NULL,
        "tokens that end a text, besides the model's own"),
    QFW_OPTION(QFW_OPT_INT, "per_device_batch_size", "8", 1, 1024, NULL, "sequences at a time"),
};
static const qfw_option plugins_options[] = {
    QFW_OPTION(QFW_OPT_LIST, "path", "", 0, 0, NULL, "folders searched for plugins"),
    QFW_OPTION(QFW_OPT_LIST, "load", "", 0, 0, NULL, "plugin files opened besides those named"),
};

#define SECTION(name, table)                                                                       \
    { name, table, COUNT(table), NULL }
const schema_section core_schema[CORE_SECTIONS] = {
    [SECTION_RUN] = SECTION("run", run_options),
    [SECTION_BACKEND] = SECTION("backend", backend_options),
    [SECTION_MODEL] = SECTION("model", model_options),
    [SECTION_ADAPTER] = SECTION("adapter", adapter_options),
    [SECTION_DATA] = SECTION("data", data_options),
    [SECTION_TRAINER] = SECTION("trainer", trainer_options),
    [SECTION_OPTIMIZER] = SECTION("optimizer", optimizer_options),
    [SECTION_EXPORT] = SECTION("export", export_options),
    [SECTION_GENERATE] = SECTION("generate", generate_options),
    [SECTION_RUBRIC] = SECTION("rubric", rubric_options),
    [SECTION_SCORE] = SECTION("score", score_options),
    [SECTION_EVALUATE] = SECTION("evaluate", evaluate_options),
    [SECTION_PAIRS] = SECTION("pairs", pairs_options),
    [SECTION_PLUGINS] = SECTION("plugins", plugins_options),
};
