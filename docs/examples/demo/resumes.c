/* resumes.c -- synthetic resume snippets with evidence per skill, scores 0-5 and a short reason,
 * for the demo.
 *
 * resumes FOLDER SEED writes pretrain.jsonl (resumes alone), train.jsonl, valid.jsonl and
 * test.jsonl (one row a resume and skill) and provenance.json. No resume is in two files; no real
 * person is in any. The same seed gives the same bytes on every machine.
 *
 * How a score comes about: 0 without evidence, else by how the resume calls the work on one of the
 * skill's topics.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SKILLS = 6, LEVELS = 5, PHRASES = 2, MAX_SENTENCES = 12 };

static const char *const skills[SKILLS] = {
    "Java", "Python", "SQL", "Cloud", "Communication", "Leadership"};

/* What a resume says of a skill: how good at which of its topics. The skill itself is never
 * named. */
static const char *const topics[SKILLS][PHRASES] = {{"JVM work", "Spring services"},
    {"pandas scripts", "Django sites"}, {"query tuning", "schema design"},
    {"Kubernetes setups", "Terraform plans"}, {"talks to customers", "meeting minutes"},
    {"team guidance", "budget planning"}};
static const char *const grades[LEVELS][PHRASES] = {{"shaky", "novice"}, {"basic", "early"},
    {"solid", "good"}, {"strong", "advanced"}, {"expert", "outstanding"}};
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
    char clause[MAX_SENTENCES][96];
    unsigned n_clauses;
    char reason[SKILLS][96];
    unsigned score[SKILLS];
} resume;

static void make_resume(resume *r) {
    char(*clauses)[96] = r->clause;
    unsigned n = 0;
    for (unsigned s = 0; s < SKILLS; s++) {
        r->score[s] = 0;
        snprintf(r->reason[s], sizeof r->reason[s], "no evidence");
        if (pick(5) < 2) continue; /* two of five skills are not mentioned */
        const unsigned level = pick(LEVELS);
        r->score[s] = level + 1;
        snprintf(r->reason[s], sizeof r->reason[s], "%s %s", grades[level][pick(PHRASES)],
            topics[s][pick(PHRASES)]);
        snprintf(clauses[n++], sizeof clauses[0], "%s", r->reason[s]);
    }
    unsigned filler = pick(COUNT(fillers));
    for (unsigned extra = 1 + pick(2); extra > 0; extra--, filler += 1 + pick(4))
        snprintf(clauses[n++], sizeof clauses[0], "%s", fillers[filler % COUNT(fillers)]);
    for (unsigned i = n; i > 1; i--) { /* shuffled */
        char spare[96];
        const unsigned j = pick(i);
        memcpy(spare, clauses[i - 1], sizeof spare);
        memcpy(clauses[i - 1], clauses[j], sizeof spare);
        memcpy(clauses[j], spare, sizeof spare);
    }
    r->n_clauses = n;
    size_t at = (size_t)snprintf(r->text, sizeof r->text, "%s", names[pick(COUNT(names))]);
    for (unsigned i = 0; i < n; i++)
        at +=
            (size_t)snprintf(r->text + at, sizeof r->text - at, "%s %s", i ? "," : "", clauses[i]);
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
            fprintf(f, "\\nPoint: %u. %s", pick(6), r->clause[pick(r->n_clauses)]);
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

static void write_scored(const char *folder, const char *name, unsigned n) {
    FILE *f = create(folder, name);
    for (unsigned i = 0; i < n; i++) {
        resume r;
        make_resume(&r);
        for (unsigned s = 0; s < SKILLS; s++)
            fprintf(f, "{\"prompt\": \"%s\\nScore for %s:\", \"completion\": \" %u. %s\"}\n",
                r.text, skills[s], r.score[s], r.reason[s]);
    }
    finish(f, name);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "use: resumes FOLDER SEED\n");
        return 64;
    }
    state = strtoull(argv[2], NULL, 10);
    write_texts(argv[1], "pretrain.jsonl", 10000);
    write_scored(argv[1], "train.jsonl", 1000);
    write_scored(argv[1], "valid.jsonl", 50);
    write_scored(argv[1], "test.jsonl", 200);
    FILE *f = create(argv[1], "provenance.json");
    fprintf(f,
        "{\"source\": \"synthetic, no real person\", \"generator\": "
        "\"docs/examples/demo/resumes.c\", "
        "\"seed\": %s, \"licence\": \"MIT\"}\n",
        argv[2]);
    finish(f, "provenance.json");
    return 0;
}
