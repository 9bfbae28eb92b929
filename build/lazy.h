/* Finds the functions of one library; included once per library with LAZY, LAZY_STATUS and LAZY_NAMES set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct descriptor {
  void *function;
  const char *name;
};

static void *LAZY(library);
static int LAZY(tried);

static int LAZY(missing)(void) { return LAZY_STATUS; }

static void *LAZY(open)(void) {
  static const char *const names[] = {LAZY_NAMES, 0};
  static const char *const folders[] = {"", "/usr/local/cuda/lib64/", "/usr/local/nvidia/lib64/", 0};
  char path[4096];
  /* colon-separated folders, tried first: where a Python environment keeps them, say */
  const char *extra = getenv("ADIT_CUDA_LIBRARIES");
  while (extra && *extra) {
    const char *end = strchrnul(extra, ':');
    for (int i = 0; names[i]; i++) {
      snprintf(path, sizeof path, "%.*s/%s", (int)(end - extra), extra, names[i]);
      void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
      if (handle) return handle;
    }
    extra = *end ? end + 1 : end;
  }
  for (int d = 0; folders[d]; d++)
    for (int i = 0; names[i]; i++) {
      snprintf(path, sizeof path, "%s%s", folders[d], names[i]);
      void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
      if (handle) return handle;
    }
  return 0;
}

__attribute__((visibility("hidden"))) void *LAZY(find)(struct descriptor *wanted) {
  if (!__atomic_load_n(&LAZY(tried), __ATOMIC_ACQUIRE)) {
    void *handle = LAZY(open)(); /* threads that race open the same library twice, which is harmless */
    if (handle) __atomic_store_n(&LAZY(library), handle, __ATOMIC_RELEASE);
    __atomic_store_n(&LAZY(tried), 1, __ATOMIC_RELEASE);
  }
  void *handle = __atomic_load_n(&LAZY(library), __ATOMIC_ACQUIRE);
  void *function = handle ? dlsym(handle, wanted->name) : 0;
  if (!function) function = (void *)LAZY(missing);
  __atomic_store_n(&wanted->function, function, __ATOMIC_RELEASE);
  return function;
}
