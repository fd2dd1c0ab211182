/* test.h -- what every cmocka program includes, in the order that cmocka needs. Include it after
 * the SDK: cmocka's macro `fail` hides the SDK's members of that name. */
#ifndef SUPPORT_TEST_H
#define SUPPORT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#endif
