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

static qfw_status check_header(
    const unsigned char *file, uint64_t n, const char *path, Elf64_Ehdr *h) {
    if (n == 0) return err_fail("E_PLUG_ELF", QFW_E_ABI, "%s: the file is empty", path);
    if (n < EI_NIDENT || memcmp(file, ELFMAG, SELFMAG))
        return err_fail(
            "E_PLUG_ELF", QFW_E_ABI, "%s: not an ELF file, wanted a shared object", path);
    if (file[EI_CLASS] != ELFCLASS64)
        return err_fail("E_PLUG_ARCH", QFW_E_ABI,
            "%s: the plugin is a 32-bit file, this qfw is 64-bit %s", path, host_arch);
    if (file[EI_DATA] != ELFDATA2LSB)
        return err_fail("E_PLUG_ARCH", QFW_E_ABI,
            "%s: the plugin is big-endian, this qfw is little-endian %s", path, host_arch);
    if (n < sizeof *h)
        return err_fail("E_PLUG_TRUNC", QFW_E_ABI,
            "%s: %llu bytes, less than an ELF header; was it copied whole?", path,
            (unsigned long long)n);
    memcpy(h, file, sizeof *h);
    if (h->e_machine != HOST_MACHINE)
        return err_fail("E_PLUG_ARCH", QFW_E_ABI, "%s: the plugin is %s, this qfw is %s", path,
            arch_name(h->e_machine), host_arch);
    if (h->e_type != ET_DYN)
        return err_fail(
            "E_PLUG_ELF", QFW_E_ABI, "%s: ELF type %u, wanted a shared object", path, h->e_type);
    return QFW_OK;
}

static qfw_status check_tables(uint64_t n, const char *path, const Elf64_Ehdr *h) {
    if (h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phnum == 0 ||
        !inside(h->e_phoff, (uint64_t)h->e_phnum * sizeof(Elf64_Phdr), n))
        return err_fail("E_PLUG_TRUNC", QFW_E_ABI,
            "%s: the program headers do not lie inside the file of %llu bytes; was it copied "
            "whole?",
            path, (unsigned long long)n);
    if (h->e_shnum && (h->e_shentsize != sizeof(Elf64_Shdr) ||
                          !inside(h->e_shoff, (uint64_t)h->e_shnum * sizeof(Elf64_Shdr), n)))
        return err_fail("E_PLUG_TRUNC", QFW_E_ABI,
            "%s: the section table does not lie inside the file of %llu bytes; was it copied "
            "whole?",
            path, (unsigned long long)n);
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
        if (!inside(p.p_offset, p.p_filesz, n))
            return err_fail("E_PLUG_TRUNC", QFW_E_ABI,
                "%s: segment %u ends at byte %llu, the file has %llu; was it copied whole?", path,
                i, (unsigned long long)(p.p_offset + p.p_filesz), (unsigned long long)n);
        if (p.p_type == PT_NOTE && !note->name_size) find_note(file + p.p_offset, p.p_filesz, note);
    }
    return QFW_OK;
}
