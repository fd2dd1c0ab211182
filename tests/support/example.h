/* example.h -- a plugin of docs/examples/plugins, built as its page says: by a plain compiler,
 * outside the tree, from the public headers alone. */
#ifndef SUPPORT_EXAMPLE_H
#define SUPPORT_EXAMPLE_H

/* <folder>/libqfw_<kind>_<name>.so from a copy of <name>.c; any word of the compiler fails the
 * test. One of the last eight paths stays valid. */
const char *example_build(const char *folder, const char *kind, const char *name);

#endif
