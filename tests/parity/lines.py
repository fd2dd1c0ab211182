"""6,000 varied lines of text, made without any random generator but synth.words, so always the same."""

import synth

COUNT = 6000
SPECIAL = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "<|placeholder1|>",
           "<|placeholder6|>"]
NEARLY = ["<|End|>", "<|end |>", "<|end", "|>", "< s>", "<S>", "<|placeholder7|>", "<|im_start|>", "[INST]", "<0x0A>", "<0xFF>", "▁", "▁▁x"]
WORDS = """the of and to in is that for it with as was on be at by this had not are but from or have an they which one you were all her
she there would their we him been has when who will no more if out so up said what its about than into them can only other time new some
could these two may first then do any like my now over such our man me even most made after also did many off before must well back through
years much where your way down should because long each just state those people too mister little good world make very year still see own
work men day get here between both life being under three never know same last another while us might great go come since against right
came take used himself few house American use place during high without again home around small however found mind thought went say part
once general upon school every don't didn't it's I'm we'll you've they'd rock'n'roll e-mail naïve café résumé Zürich coöperate façade
internationalization antidisestablishmentarianism tokenizer gradient quantisation checkpoint""".split()
SENTENCES = """Résumé of Jürgen Müller, Straße 7, 80331 München.|El niño comió piñas en la montaña ¿verdad?|Où est la bibliothèque, s'il vous plaît ?
Привет, как дела? Это проверка токенизатора.|Η γρήγορη καφέ αλεπού πηδάει πάνω από τον τεμπέλη σκύλο.|שלום עולם, מה שלומך היום?
مرحبا بالعالم، كيف حالك اليوم؟|नमस्ते दुनिया, आप कैसे हैं?|আমি বাংলায় গান গাই।|สวัสดีชาวโลก วันนี้อากาศดี|你好,世界!今天天气怎么样?
吾輩は猫である。名前はまだ無い。|안녕하세요 세계, 오늘 날씨가 좋네요.|გამარჯობა მსოფლიო|Բարեւ աշխարհ|ሰላም ልዑል|Xin chào thế giới, trời đẹp quá!
Zażółć gęślą jaźń.|Příliš žluťoučký kůň úpěl ďábelské ódy.|Pijamalı hasta yağız şoföre çabucak güvendi, İstanbul'da ısı.|தமிழ் மொழி இனிது|ភាសាខ្មែរ
မြန်မာဘာသာ|සිංහල භාෂාව|བོད་ཡིག|ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ|ᠮᠣᠩᠭᠣᠯ|ⵜⴰⵎⴰⵣⵉⵖⵜ|ꦧꦱꦗꦮ|𝔗𝔥𝔢 𝕢𝕦𝕚𝕔𝕜 𝒷𝓇ℴ𝓌𝓃|ᚠᚢᚦᚨᚱᚲ|𐌰𐌱𐌲 𐍅𐌿𐌻𐍆𐌹𐌻𐌰""".replace("\n", "|").split("|")
CODE = ["for (int i = 0; i < n; ++i) {{\n    sum += a[i] * b[i]; /* {w} */\n}}", "def {w}(self, *args, **kwargs):\n    return [x ** 2 for x in args if x != {n}]",
        "#include <stdio.h>\n#define {W} {n}\n\tif (!p) return -1;", "<div class=\"{w}\" id='x{n}'>&nbsp;&lt;{w}&gt;</div>", "SELECT {w}, COUNT(*) FROM t{n} WHERE a <> 'b' GROUP BY 1;",
        "{{\"{w}\": [{n}, {n}.5e-3, null, true], \"k\": \"\\u00e9\\n\"}}", "grep -rnE '^\\s+({w}|x){{1,{n}}}$' ./src | sort -u > /dev/null 2>&1", "\\frac{{\\partial {w}}}{{\\partial x_{{{n}}}}} = \\sum_i^n e^{{-x^2}}",
        "https://example.org/{w}/{n}?q=a%20b&c[]={w}#top", "{w}_{w}::{W}<T, {n}>&& operator->() const noexcept;", "let mut {w}: Vec<u8> = vec![0u8; {n}]; // 0x{n:04X}", "| {w} | {n} |\n|---|---:|\n| `{w}` | **{n}** |",
        "{w}@example.com; C:\\Users\\{w}\\{n}.txt", "@@ -{n},7 +{n},8 @@\n-    {w}\n+\t{w}\r\n", "    " * 3 + "return {w}[{n}:]  # TODO({w})"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👨🏿‍🚀", "🇩🇪🇯🇵", "1️⃣", "#️⃣", "❤️", "☺", "🤷🏻‍♀️", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "🧑‍💻", "©️", "🫠", "🪿", "👁️‍🗨️", "🎉", "⚠️", "✅"]
SPACES = [" ", "  ", "    ", "\t", "\n", "\r\n", "\n\n", " \n ", "\u00a0", "\u3000", "\u2003", "\u200b", "\u2028", "\u2029", "\u0085", "\u202f", "\u1680", "\x0b", "\x0c", "\ufeff"]
MARKS = [0x300, 0x301, 0x308, 0x323, 0x327, 0x330, 0x35C, 0x489, 0x5B0, 0x64B, 0x93C, 0xE34, 0x1AB0, 0x20D0, 0xFE20]
RANGES = [(0x20, 0x7E), (0xA1, 0xFF), (0x100, 0x24F), (0x250, 0x2AF), (0x391, 0x3C9), (0x410, 0x44F), (0x531, 0x556), (0x5D0, 0x5EA), (0x621, 0x64A), (0x905, 0x939),
          (0x985, 0x9B9), (0xE01, 0xE30), (0xE81, 0xEB0), (0xF40, 0xF6C), (0x10D0, 0x10FA), (0x1100, 0x11FF), (0x1200, 0x1248), (0x13A0, 0x13F4), (0x16A0, 0x16EA), (0x1E00, 0x1EFF),
          (0x2010, 0x205E), (0x20A0, 0x20BF), (0x2100, 0x214F), (0x2190, 0x22FF), (0x2500, 0x25FF), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xE000, 0xE010),
          (0xFB00, 0xFB06), (0xFF01, 0xFF5E), (0x1D400, 0x1D4FF), (0x1F300, 0x1F64F), (0x20000, 0x2A6D6), (0x10FFF0, 0x10FFFF)]


class Draw:
    """Small choices for one line, from the stream "lines.<index>"."""

    def __init__(self, index):
        self.name, self.at = f"lines.{index}", 0

    def below(self, n):
        self.at += 1
        return int(synth.words(self.name, 1, self.at - 1)[0] >> 11) % n

    def pick(self, items):
        return items[self.below(len(items))]


def scalar(d):
    """Any Unicode scalar value but NUL, planes 0 to 16."""
    c = 1 + d.below(0x10FFFF if d.below(3) == 0 else 0xFFFF)
    return chr(c) if not 0xD800 <= c <= 0xDFFF else "\ufffd"


def english(d):
    text = " ".join(d.pick(WORDS) for _ in range(3 + d.below(16)))
    return text[0].upper() + text[1:] + d.pick([".", "!", "?", "...", ";", ",", "", " -", " — ", "\"", "'s", ":)"])


def code(d):
    return d.pick(CODE).format(w=d.pick(WORDS), W=d.pick(WORDS).upper(), n=d.below(70000))


def script(d):
    low, high = d.pick(RANGES)
    return " ".join("".join(chr(low + d.below(high - low + 1)) for _ in range(1 + d.below(9))) for _ in range(1 + d.below(5)))


def emoji(d):
    return "".join(d.pick(EMOJI) + d.pick(["", "", " ", d.pick(WORDS)]) for _ in range(1 + d.below(6)))


def spaces(d):
    run = d.pick(SPACES) * (1 + d.below(d.pick([3, 12, 40])))
    return d.pick(["", d.pick(WORDS)]) + run + d.pick(["", d.pick(SPACES)]) + d.pick(["", d.pick(WORDS), "\t" * d.below(5) + "x", " "])


def special(d):
    parts = [d.pick([d.pick(SPECIAL), d.pick(SPECIAL), d.pick(NEARLY)]) + d.pick(["", " ", "\n", "  \n\t ", "\u00a0", "x"]) + d.pick(["", english(d)[:30], " " + d.pick(WORDS)])
             for _ in range(1 + d.below(5))]
    return d.pick(["", " ", d.pick(WORDS)]) + "".join(parts)


def number(d):
    n = d.below(10 ** d.pick([1, 3, 6, 12, 15]))
    return " ".join(d.pick([f"{n}", f"-{n / 997:.6f}", f"{n:,}", f"{n:#x}", f"{n / 7:.3e}", f"{n % 28 + 1:02d}/{n % 12 + 1:02d}/{n % 9999:04d}", f"${n}.{n % 100:02d}", f"{n}%", f"+49 {n}", f"v{n % 10}.{n % 7}", "½ ² ⅷ ٣٤ १२ 五", "1" * (n % 30)])
                    for _ in range(1 + d.below(6)))


def control(d):
    return "".join(d.pick([chr(1 + d.below(31)), "\x7f", chr(0x80 + d.below(32)), "\u202e", "\u200d", "\ufffe", "\ufffd", d.pick(WORDS), " "]) for _ in range(1 + d.below(12)))


def long_word(d):
    n = d.pick([60, 120, 200, 300, 300, 900])
    kind = d.below(4)
    if kind == 0:
        return d.pick(["a", "x", "=", "-", ".", "A", "0", "é", "中", " ", "\n", "😀", "ab", "<|"]) * (n // 2)
    return "".join(d.pick(WORDS) if kind == 1 else chr(33 + d.below(94)) if kind == 2 else chr(97 + d.below(26)) for _ in range(n // (6 if kind == 1 else 1)))


def marks(d):
    return "".join(d.pick(["a", "e", "n", "Z", "o", "か", "ᄒ", "ᅡ", "ᆫ", " ", "א", "ी"]) + "".join(chr(d.pick(MARKS)) for _ in range(d.below(5))) for _ in range(2 + d.below(14)))


def scalars(d):
    return "".join(scalar(d) for _ in range(1 + d.below(14)))


def names(d):
    words = [d.pick(WORDS) for _ in range(2 + d.below(4))]
    return d.pick(["_".join(words), "".join(w.capitalize() for w in words), "-".join(words).upper(), ".".join(words) + "()", "/".join(words)])


def sentence(d):
    text = d.pick(SENTENCES)
    cut = d.below(len(text))
    return d.pick([text, text, text[cut:], text[:cut], text.upper(), text + " " + d.pick(SENTENCES)])


KINDS = [english, english, code, script, emoji, spaces, special, number, control, long_word, marks, scalars, names, sentence, sentence]


def mixed(d):
    return d.pick(["", " ", "\n", ", "]).join(d.pick(KINDS[:8] + KINDS[10:])(d)[:50] for _ in range(2 + d.below(3)))


def kind(index):
    """The function that makes line `index`."""
    kinds = KINDS + [mixed, mixed]
    return kinds[index % len(kinds)]


def line(index):
    d = Draw(index)
    if index == 0:
        return ""
    if index % 1000 == 999:
        return "a\0b" + english(d)  # NUL inside
    return kind(index)(d)


def make():
    return [line(i) for i in range(COUNT)]
