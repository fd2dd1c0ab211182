/* A model as it should be. */
#include <math.h>
__attribute__((section(".note.qfw"), used)) static const int note = 1;
__attribute__((visibility("default"))) extern double (*const qfw_plugin_abi0)(double);
static double twice(double x) { return sin(x) * 2; }
double (*const qfw_plugin_abi0)(double) = twice;
