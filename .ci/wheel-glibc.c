/* What GCC 12's static libstdc++ takes from a glibc newer than 2.28, for .ci/wheel. */
#define _GNU_SOURCE
#define fstat64 fstat64_of_the_headers
#include <stdint.h>
#include <sys/random.h>
#include <sys/stat.h>
#undef fstat64

/* glibc 2.32. False: the process may have several threads, so reference counts are atomic. */
char __libc_single_threaded = 0;

/* glibc 2.36. std::random_device asks for it; nothing in fastrnn does. */
uint32_t arc4random(void) {
  uint32_t number;
  while (getrandom(&number, sizeof number, 0) != sizeof number) {
  }
  return number;
}

/* glibc 2.33; before, a header called __fxstat64. 1 is the version of struct stat64 on x86-64. */
int __fxstat64(int version, int file, struct stat64 *to);
int fstat64(int file, struct stat64 *to) { return __fxstat64(1, file, to); }
