/* elf.c -- the checks that dlopen does not make: extents, architecture, and the plugin's note.
 *
 * All numbers come from a stranger: every offset is compared with the file's size before it is
 * followed.
 */
#include "plugin/elf.h"

#include <elf.h>
#include <string.h>

#include "base/error.h"

#if defined(__x86_64__)
enum { HOST_MACHINE = EM_X86_64 };
static const char host_arch[] = "x86_64";
#elif defined(__aarch64__)
enum { HOST_MACHINE = EM_AARCH64 };
static const char host_arch[] = "aarch64";
#else
enum { HOST_MACHINE = EM_NONE };
static const char host_arch[] = "this machine's kind";
#endif

static const char *arch_name(unsigned machine) {
    switch (machine) {
    case EM_X86_64: return "x86_64";
    case EM_386: return "i386 (32 bits)";
    case EM_AARCH64: return "aarch64";
    case EM_ARM: return "arm (32 bits)";
    case EM_RISCV: return "riscv";
    case EM_PPC64: return "ppc64";
    default: return "another architecture";
    }
}

static int inside(uint64_t offset, uint64_t bytes, uint64_t n) {
    return offset <= n && bytes <= n - offset;
}

static qfw_status wrong_file(const char *path, const char *what) {
    return err_fail("E_PLUG_ELF", QFW_E_ABI,
        "%s: %s, wanted a shared object; hint: name the .so file itself", path, what);
}

static qfw_status wrong_arch(const char *path, const char *what) {
    return err_fail("E_PLUG_ARCH", QFW_E_ABI,
        "%s: the plugin is %s, this qfw is little-endian 64-bit %s; hint: build it for this "
        "machine",
        path, what, host_arch);
}

static qfw_status cut_off(const char *path, const char *what, uint64_t n) {
    return err_fail("E_PLUG_TRUNC", QFW_E_ABI,
        "%s: %s past the end of the file (%llu bytes); hint: copy it again, whole", path, what,
        (unsigned long long)n);
}

static qfw_status check_header(
    const unsigned char *file, uint64_t n, const char *path, Elf64_Ehdr *h) {
    if (n == 0) return wrong_file(path, "the file is empty");
    if (n < SELFMAG || memcmp(file, ELFMAG, SELFMAG)) return wrong_file(path, "not an ELF file");
    if (n < EI_NIDENT) return cut_off(path, "the ELF header goes", n);
    if (file[EI_CLASS] != ELFCLASS64) return wrong_arch(path, "a 32-bit file");
    if (file[EI_DATA] != ELFDATA2LSB) return wrong_arch(path, "big-endian");
    if (n < sizeof *h) return cut_off(path, "the ELF header goes", n);
    memcpy(h, file, sizeof *h);
    if (h->e_machine != HOST_MACHINE) return wrong_arch(path, arch_name(h->e_machine));
    if (h->e_type != ET_DYN)
        return wrong_file(path, h->e_type == ET_REL ? "an object file" : "ELF, but not a library");
    return QFW_OK;
}

static qfw_status check_tables(uint64_t n, const char *path, const Elf64_Ehdr *h) {
    if (h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phnum == 0 ||
        !inside(h->e_phoff, (uint64_t)h->e_phnum * sizeof(Elf64_Phdr), n))
        return cut_off(path, "the program headers are empty or go", n);
    if (h->e_shnum && (h->e_shentsize != sizeof(Elf64_Shdr) ||
                          !inside(h->e_shoff, (uint64_t)h->e_shnum * sizeof(Elf64_Shdr), n)))
        return cut_off(path, "the section table goes", n);
    return QFW_OK;
}

/* The note of owner "qfw" inside one PT_NOTE segment. */
static void find_note(const unsigned char *at, uint64_t bytes, qfw_note *note) {
    while (bytes >= 12) {
        uint32_t head[3]; /* name size, description size, type */
        memcpy(head, at, sizeof head);
        const uint64_t name = ((uint64_t)head[0] + 3) & ~3ull,
                       desc = ((uint64_t)head[1] + 3) & ~3ull;
        if (!inside(12, name + desc, bytes)) return;
        if (head[0] == 4 && !memcmp(at + 12, "qfw", 4) && head[2] == 1 &&
            head[1] == sizeof *note - 16) {
            memcpy(note, at, sizeof *note);
            note->name[sizeof note->name - 1] = 0;
            return;
        }
        at += 12 + name + desc;
        bytes -= 12 + name + desc;
    }
}

qfw_status elf_check(const unsigned char *file, uint64_t n, const char *path, qfw_note *note) {
    Elf64_Ehdr h;
    memset(note, 0, sizeof *note);
    QFW_TRY(check_header(file, n, path, &h));
    QFW_TRY(check_tables(n, path, &h));
    for (unsigned i = 0; i < h.e_phnum; i++) {
        Elf64_Phdr p;
        memcpy(&p, file + h.e_phoff + i * sizeof p, sizeof p);
        if (p.p_type != PT_LOAD && p.p_type != PT_NOTE && p.p_type != PT_DYNAMIC) continue;
        if (!inside(p.p_offset, p.p_filesz, n)) return cut_off(path, "a segment goes", n);
        if (p.p_type == PT_NOTE && !note->name_size) find_note(file + p.p_offset, p.p_filesz, note);
    }
    return QFW_OK;
}
