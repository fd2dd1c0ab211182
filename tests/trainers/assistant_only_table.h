/* assistant_only_table.h -- made by tests/parity/make_assistant_only.py with trl 1.16.0: the model,
 * the rows, which of their tokens are trained under the template of Phi-3-mini and (rows without a
 * system turn) Phi-3-medium, and loss, gradient norm and trained tokens of each step. */
/* clang-format off */
static const char config[] =
    "{\"architectures\": [\"Phi3ForCausalLM\"], \"model_type\": \"phi3\", \"vocab_size\": 500, \""
    "hidden_size\": 128, \"intermediate_size\": 256, \"num_hidden_layers\": 2, \"num_attention_he"
    "ads\": 4, \"num_key_value_heads\": 2, \"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-05, \"m"
    "ax_position_embeddings\": 128, \"original_max_position_embeddings\": 128, \"sliding_window\""
    ": null, \"rope_theta\": 10000.0, \"rope_scaling\": null, \"partial_rotary_factor\": 1.0, \"t"
    "ie_word_embeddings\": false, \"attention_bias\": false, \"attention_dropout\": 0.0, \"embd_p"
    "drop\": 0.0, \"resid_pdrop\": 0.0, \"bos_token_id\": 1, \"eos_token_id\": 490, \"pad_token_i"
    "d\": 499, \"initializer_range\": 0.02, \"torch_dtype\": \"float32\", \"use_cache\": false}";
static const char *const rows[] = {
    "{\"messages\": [{\"role\": \"user\", \"content\": \"to was\"}, {\"role\": \"assistant\", \"c"
    "ontent\": \"a with\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a year is the\"}, {\"role\": \"assistant"
    "\", \"content\": \"year and that in for it\"}, {\"role\": \"user\", \"content\": \"on is and"
    " in on year for\"}, {\"role\": \"assistant\", \"content\": \"a the year with\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"with at for year for\"}, {\"role\": \"as"
    "sistant\", \"content\": \"on on was was\"}, {\"role\": \"user\", \"content\": \"year of with"
    "\"}, {\"role\": \"assistant\", \"content\": \"year to\"}, {\"role\": \"user\", \"content\": "
    "\"and a it\"}, {\"role\": \"assistant\", \"content\": \"year at\"}]}",
    "{\"messages\": [{\"role\": \"system\", \"content\": \"the to is the\"}, {\"role\": \"user\","
    " \"content\": \"to that at with a to\"}, {\"role\": \"assistant\", \"content\": \"for with\""
    "}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"is\"}, {\"role\": \"assistant\", \"conte"
    "nt\": \"year\"}, {\"role\": \"user\", \"content\": \"for was at on\"}, {\"role\": \"assistan"
    "t\", \"content\": \"that year on with\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"and in with\"}, {\"role\": \"assistant\""
    ", \"content\": \"and the\"}, {\"role\": \"user\", \"content\": \"with year on it with on\"},"
    " {\"role\": \"assistant\", \"content\": \"in at year is\"}, {\"role\": \"user\", \"content\""
    ": \"is is of\"}, {\"role\": \"assistant\", \"content\": \"on\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"to for that for the\"}, {\"role\": \"ass"
    "istant\", \"content\": \"with in was it\"}]}",
    "{\"messages\": [{\"role\": \"system\", \"content\": \"with was that it\"}, {\"role\": \"user"
    "\", \"content\": \"at year on the was\"}, {\"role\": \"assistant\", \"content\": \"it of to"
    "\"}, {\"role\": \"user\", \"content\": \"in for that it on to\"}, {\"role\": \"assistant\", "
    "\"content\": \"a in that on\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"year it to the it a\"}, {\"role\": \"ass"
    "istant\", \"content\": \"for with is at was\"}, {\"role\": \"user\", \"content\": \"to is of"
    " at that to\"}, {\"role\": \"assistant\", \"content\": \"and was and in and a\"}, {\"role\":"
    " \"user\", \"content\": \"on\"}, {\"role\": \"assistant\", \"content\": \"in of of at and\"}"
    "]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"of the of was that it is\"}, {\"role\": "
    "\"assistant\", \"content\": \"is the in at\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"on on and at\"}, {\"role\": \"assistant"
    "\", \"content\": \"year that to that it that\"}, {\"role\": \"user\", \"content\": \"with th"
    "at at is a in at\"}, {\"role\": \"assistant\", \"content\": \"the\"}]}",
    "{\"messages\": [{\"role\": \"system\", \"content\": \"to to\"}, {\"role\": \"user\", \"conte"
    "nt\": \"is with\"}, {\"role\": \"assistant\", \"content\": \"in year in for year with was\"}"
    ", {\"role\": \"user\", \"content\": \"on with is a\"}, {\"role\": \"assistant\", \"content\""
    ": \"with to\"}, {\"role\": \"user\", \"content\": \"in the a it was of the\"}, {\"role\": \""
    "assistant\", \"content\": \"for and of with\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"was it\"}, {\"role\": \"assistant\", \"c"
    "ontent\": \"with for\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"on is in on of a and\"}, {\"role\": \"as"
    "sistant\", \"content\": \"and at is the on\"}, {\"role\": \"user\", \"content\": \"to with\""
    "}, {\"role\": \"assistant\", \"content\": \"on to that and that year with\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"on year at that to a to\"}, {\"role\": "
    "\"assistant\", \"content\": \"and the with to that to for\"}, {\"role\": \"user\", \"content"
    "\": \"of with to in the\"}, {\"role\": \"assistant\", \"content\": \"the for to\"}, {\"role"
    "\": \"user\", \"content\": \"the that year is is\"}, {\"role\": \"assistant\", \"content\": "
    "\"it for at was\"}]}",
    "{\"messages\": [{\"role\": \"system\", \"content\": \"a it for it\"}, {\"role\": \"user\", "
    "\"content\": \"to was for\"}, {\"role\": \"assistant\", \"content\": \"with to was at it\"}]"
    "}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"in was in to was\"}, {\"role\": \"assist"
    "ant\", \"content\": \"a of in\"}, {\"role\": \"user\", \"content\": \"of for at is and with"
    "\"}, {\"role\": \"assistant\", \"content\": \"a at with at it on\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"in a of is year at year\"}, {\"role\": "
    "\"assistant\", \"content\": \"at it at it\"}, {\"role\": \"user\", \"content\": \"with it th"
    "e it for\"}, {\"role\": \"assistant\", \"content\": \"was with and is that of in\"}, {\"role"
    "\": \"user\", \"content\": \"for in\"}, {\"role\": \"assistant\", \"content\": \"and was for"
    " with a\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"for of is\"}, {\"role\": \"assistant\", "
    "\"content\": \"for\"}]}",
    "{\"messages\": [{\"role\": \"system\", \"content\": \"with with on a\"}, {\"role\": \"user\""
    ", \"content\": \"was and to and was\"}, {\"role\": \"assistant\", \"content\": \"was with wi"
    "th a for that\"}, {\"role\": \"user\", \"content\": \"year and\"}, {\"role\": \"assistant\","
    " \"content\": \"year for\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"for of and it at of with\"}, {\"role\": "
    "\"assistant\", \"content\": \"year for it that in\"}, {\"role\": \"user\", \"content\": \"a "
    "for at that\"}, {\"role\": \"assistant\", \"content\": \"in on in to of it\"}, {\"role\": \""
    "user\", \"content\": \"of it year and year on\"}, {\"role\": \"assistant\", \"content\": \"a"
    "\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a to that was\"}, {\"role\": \"assistant"
    "\", \"content\": \"year the of of is on\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"year with it in\"}, {\"role\": \"assista"
    "nt\", \"content\": \"of that was\"}, {\"role\": \"user\", \"content\": \"was\"}, {\"role\": "
    "\"assistant\", \"content\": \"is a was\"}]}",
    "{\"messages\": [{\"role\": \"system\", \"content\": \"is on\"}, {\"role\": \"user\", \"conte"
    "nt\": \"and to year it in\"}, {\"role\": \"assistant\", \"content\": \"of\"}, {\"role\": \"u"
    "ser\", \"content\": \"it for the\"}, {\"role\": \"assistant\", \"content\": \"for for at\"},"
    " {\"role\": \"user\", \"content\": \"with that at with\"}, {\"role\": \"assistant\", \"conte"
    "nt\": \"for in is to of of year\"}]}",
};
static const char *const mini_masks[] = {
    "0000001111",
    "00000000111111111000000000000111111",
    "00000000011111110000000111000000011111",
    "0000000000000000001111",
    "00000110000000001111111",
    "000000011110000000001111111000000000111",
    "0000000001111111",
    "0000000000000000001111100000000001111111",
    "000000000111111111000000000000011111111111000011111111111",
    "00000000000000011111111",
    "000000000111111111100000000000000111",
    "00000000001111111110000000011100000000000011111111",
    "0000001111",
    "000000000000011111111100000111111111111",
    "000000000000111111111100000000011110000000000011111111",
    "0000000000000111111111",
    "00000000001111100000000000001111111111",
    "0000000000000111111100000000111111111111100000111111111",
    "00000000111",
    "0000000000000000001111111110000001111",
    "0000000000000011111110000000001111111100000000000111",
    "00000000011111111111",
    "00000001111111000001111111",
    "0000000000000011100000011111000000000111111111111",
};
static const char *const medium_masks[] = {
    "000000111",
    "0000000011111111100000000000011111",
    "0000000001111111000000011100000001111",
    "0000011000000000111111",
    "00000001111000000000111111100000000011",
    "000000000111111",
    "00000000011111111100000000000001111111111100001111111111",
    "0000000000000001111111",
    "00000000011111111110000000000000011",
    "000000111",
    "00000000000001111111110000011111111111",
    "00000000000011111111110000000001111000000000001111111",
    "0000000000111110000000000000111111111",
    "000000000000011111110000000011111111111110000011111111",
    "0000000011",
    "000000000000001111111000000000111111110000000000011",
    "0000000001111111111",
    "0000000111111100000111111",
};
static const double steps[][3] = {
    {6.946394443511963, 1.6132856607437134, 227},
    {6.98515510559082, 1.82017183303833, 104},
    {6.991944313049316, 1.5508671998977661, 188},
    {6.729397773742676, 1.8165029287338257, 143},
    {6.58865213394165, 1.7088900804519653, 199},
    {6.53570556640625, 2.29884934425354, 132},
    {6.091570854187012, 2.0172979831695557, 257},
    {5.646876335144043, 3.0141899585723877, 74},
    {5.168880462646484, 2.4302761554718018, 180},
    {4.720371246337891, 2.6087048053741455, 151},
    {4.339427471160889, 2.2590219974517822, 210},
    {4.03533935546875, 2.6420652866363525, 121},
    {3.8798203468322754, 1.4150512218475342, 214},
    {3.778780937194824, 1.6568784713745117, 117},
    {3.6945858001708984, 1.5638823509216309, 223},
    {3.5626533031463623, 1.6888505220413208, 108},
    {3.417771339416504, 1.3973840475082397, 222},
    {3.320173740386963, 1.4982788562774658, 109},
    {3.1177256107330322, 1.4745984077453613, 229},
    {3.2193028926849365, 2.06705641746521, 102},
    {2.959456443786621, 1.6193045377731323, 225},
    {2.934622287750244, 1.8189071416854858, 106},
    {2.7701923847198486, 1.2137646675109863, 224},
    {2.7114059925079346, 1.904427170753479, 107},
    {2.5735535621643066, 1.1849513053894043, 208},
    {2.552957057952881, 1.4719163179397583, 123},
    {2.372345447540283, 1.1203150749206543, 232},
    {2.5326764583587646, 1.5460636615753174, 99},
    {2.342292308807373, 1.0843485593795776, 262},
    {2.110095500946045, 2.447606325149536, 69},
    {2.1809284687042236, 1.1013188362121582, 214},
    {2.1767072677612305, 1.9212841987609863, 117},
    {2.0963315963745117, 1.226137399673462, 211},
    {2.06384539604187, 1.5372668504714966, 120},
    {2.0672552585601807, 0.9943118095397949, 255},
    {1.7949879169464111, 2.4054903984069824, 76},
    {1.9486005306243896, 0.9697346687316895, 232},
    {1.887783408164978, 2.1134655475616455, 99},
    {1.8677570819854736, 1.1075199842453003, 196},
    {1.864687204360962, 1.429567813873291, 135},
    {1.853419303894043, 1.2042416334152222, 197},
    {1.773860216140747, 1.5402110815048218, 134},
    {1.7923920154571533, 1.048061728477478, 218},
    {1.7712483406066895, 1.6734098196029663, 113},
    {1.71329665184021, 0.9628391861915588, 238},
    {1.883542537689209, 1.7057719230651855, 93},
    {1.765868902206421, 0.9535072445869446, 216},
    {1.7100600004196167, 1.5018644332885742, 115},
    {1.731975793838501, 1.1169803142547607, 198},
    {1.7535340785980225, 1.4416855573654175, 133},
};
/* clang-format on */
