/* resumes.c -- synthetic resumes with evidence per skill and scores of 0 to 5, for the demo.
 *
 * resumes FOLDER SEED writes
 *   pretrain.jsonl   resumes, some of their points again under the skill that they speak for
 *   train.jsonl      SFT: one row a resume and skill, labelled by a biased rater
 *   pool.jsonl       resumes with the right scores, from which preference pairs are made
 *   valid.jsonl, test.jsonl   resumes with the right scores and their evidence, to evaluate on
 *   unseen.jsonl     rows as in train.jsonl, for the loss on what was not trained on
 *   provenance.json
 * No resume is in two files; no real person is in any. The same seed gives the same bytes on every
 * machine.
 *
 * The rubric: 0 without evidence, else the level of the phrase that speaks for the skill. The rater
 * of train.jsonl gives Java a point too much and Communication a point too little in two of three
 * cases where there is evidence: the faults that preference pairs are to correct.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SKILLS = 6, LEVELS = 5, PHRASES = 2, MAX_POINTS = 12, JAVA = 0, COMMUNICATION = 4 };

static const char *const skills[SKILLS] = {
    "Java", "Python", "SQL", "Cloud", "Communication", "Leadership"};

/* What a resume says of a skill at levels 1 to 5. The skill itself is never named. */
static const char *const phrases[SKILLS][LEVELS][PHRASES] = {
    {{"copied an applet", "read a JVM primer"}, {"fixed small servlets", "patched a Swing form"},
        {"built Spring services", "wrote Hibernate mappings"},
        {"tuned garbage collectors", "led a Maven migration"},
        {"designed bytecode compilers", "commits to OpenJDK"}},
    {{"ran notebook cells", "followed a scripting tutorial"},
        {"wrote cron scripts", "cleaned sheets with pandas"},
        {"built Flask sites", "wrote pytest suites"},
        {"shipped Django platforms", "packaged numerical libraries"},
        {"maintains CPython modules", "authored an asyncio framework"}},
    {{"exported tables by hand", "read a query guide"},
        {"wrote simple selects", "joined two tables"},
        {"designed normal schemas", "wrote stored procedures"},
        {"tuned slow queries", "partitioned large warehouses"},
        {"wrote a query planner", "runs sharded replicas"}},
    {{"opened a hosting account", "uploaded static pages"},
        {"started virtual machines", "kept object buckets"},
        {"wrote Terraform plans", "ran container clusters"},
        {"automated failover regions", "halved hosting bills"},
        {"designed a service mesh", "built a hyperscale network"}},
    {{"speaks rarely in meetings", "sends terse notes"},
        {"writes clear minutes", "answers customer mail"},
        {"presents weekly demos", "runs user workshops"},
        {"wrote the public handbook", "moderates hard talks"},
        {"gave conference keynotes", "speaks for the company"}},
    {{"shadowed a manager", "trained one intern"}, {"ran a small sprint", "mentored two juniors"},
        {"led a team of five", "planned yearly budgets"},
        {"built three departments", "hired forty engineers"},
        {"ran a whole division", "turned a company around"}}};
static const char *const fillers[] = {"lives near the coast", "likes long walks",
    "plays chess on Sundays", "holds a driving licence", "collects old maps",
    "speaks two languages", "grew up on a farm", "sings in a choir", "repairs bicycles",
    "studied history first"};
static const char *const names[] = {"Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo",
    "Ida", "Jon", "Kim", "Leo", "Mia", "Ned", "Ola", "Pia", "Rob", "Sue", "Tom", "Uma"};
#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static uint64_t state;

static uint64_t next(void) { /* splitmix64 */
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static unsigned pick(unsigned n) { return (unsigned)(next() >> 33) % n; }

typedef struct resume {
    char text[1024];
    const char *point[MAX_POINTS];
    unsigned n_points;
    const char *reason[SKILLS];
    unsigned score[SKILLS];
} resume;

static void shuffle(const char **list, unsigned n) {
    for (unsigned i = n; i > 1; i--) {
        const unsigned j = pick(i);
        const char *spare = list[i - 1];
        list[i - 1] = list[j];
        list[j] = spare;
    }
}

static void make_resume(resume *r) {
    unsigned n = 0;
    for (unsigned s = 0; s < SKILLS; s++) {
        r->score[s] = 0;
        r->reason[s] = "no evidence";
        if (pick(5) < 2) continue; /* two of five skills are not mentioned */
        const unsigned level = pick(LEVELS);
        r->score[s] = level + 1;
        r->reason[s] = r->point[n++] = phrases[s][level][pick(PHRASES)];
    }
    unsigned filler = pick(COUNT(fillers));
    for (unsigned extra = 1 + pick(2); extra > 0; extra--, filler += 1 + pick(4))
        r->point[n++] = fillers[filler % COUNT(fillers)];
    shuffle(r->point, n);
    r->n_points = n;
    size_t at = (size_t)snprintf(r->text, sizeof r->text, "%s", names[pick(COUNT(names))]);
    for (unsigned i = 0; i < n; i++)
        at +=
            (size_t)snprintf(r->text + at, sizeof r->text - at, "%s %s", i ? "," : "", r->point[i]);
    snprintf(r->text + at, sizeof r->text - at, ".");
}

static FILE *create(const char *folder, const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    if (!f) {
        fprintf(stderr, "resumes: %s cannot be written\n", path);
        exit(1);
    }
    return f;
}

static void finish(FILE *f, const char *name) {
    if (!ferror(f) && !fclose(f)) return;
    fprintf(stderr, "resumes: %s cannot be written\n", name);
    exit(1);
}

/* What a resume may close with: some of its points again, under a skill or a number. No score
 * stands anywhere. */
static void write_appendix(FILE *f, const resume *r) {
    const int numbered = pick(3) == 0;
    for (unsigned i = 0; i < 3; i++) {
        const unsigned s = pick(SKILLS);
        if (!numbered)
            fprintf(f, "\\nEvidence for %s: %s", skills[s], r->reason[s]);
        else
            fprintf(f, "\\nPoint: %u. %s", pick(6), r->point[pick(r->n_points)]);
    }
}

static void write_texts(const char *folder, const char *name, unsigned n) {
    FILE *f = create(folder, name);
    for (unsigned i = 0; i < n; i++) {
        resume r;
        make_resume(&r);
        fprintf(f, "{\"text\": \"%s", r.text);
        write_appendix(f, &r);
        fprintf(f, "\"}\n");
    }
    finish(f, name);
}

/* The score that the biased rater gives. */
static unsigned rate(const resume *r, unsigned skill) {
    const unsigned score = r->score[skill];
    const int biased = score && pick(3) < 2;
    if (biased && skill == JAVA && score < LEVELS) return score + 1;
    if (biased && skill == COMMUNICATION && score > 1) return score - 1;
    return score;
}

static void write_rated(const char *folder, const char *name, unsigned n) {
    FILE *f = create(folder, name);
    for (unsigned i = 0; i < n; i++) {
        resume r;
        make_resume(&r);
        for (unsigned s = 0; s < SKILLS; s++)
            fprintf(f, "{\"prompt\": \"%s\\nScore for %s:\", \"completion\": \" %u. %s\"}\n",
                r.text, skills[s], rate(&r, s), r.reason[s]);
    }
    finish(f, name);
}

static void write_known(const char *folder, const char *name, unsigned n) {
    FILE *f = create(folder, name);
    for (unsigned i = 0; i < n; i++) {
        resume r;
        make_resume(&r);
        fprintf(f, "{\"id\": \"%.*s-%03u\", \"text\": \"%s\", \"expected\": {",
            (int)strcspn(name, "."), name, i + 1, r.text);
        for (unsigned s = 0; s < SKILLS; s++)
            fprintf(f, "%s\"%s\": %u", s ? ", " : "", skills[s], r.score[s]);
        fprintf(f, "}, \"evidence\": {");
        for (unsigned s = 0, any = 0; s < SKILLS; s++)
            if (r.score[s])
                fprintf(f, "%s\"%s\": \"%s\"", any++ ? ", " : "", skills[s], r.reason[s]);
        fprintf(f, "}}\n");
    }
    finish(f, name);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "use: resumes FOLDER SEED\n");
        return 64;
    }
    state = strtoull(argv[2], NULL, 10);
    write_texts(argv[1], "pretrain.jsonl", 8000);
    write_rated(argv[1], "train.jsonl", 1000);
    write_known(argv[1], "pool.jsonl", 200);
    write_known(argv[1], "valid.jsonl", 100);
    write_known(argv[1], "test.jsonl", 300);
    write_rated(argv[1], "unseen.jsonl", 100);
    FILE *f = create(argv[1], "provenance.json");
    fprintf(f,
        "{\"source\": \"synthetic, no real person\", \"generator\": "
        "\"docs/examples/demo/resumes.c\", \"seed\": %s, \"licence\": \"MIT\"}\n",
        argv[2]);
    finish(f, "provenance.json");
    return 0;
}
