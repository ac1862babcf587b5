/*
 * The operating system's calls that Node.js does not offer, for src/system/native.ts: reserving blocks, mapping a file over a
 * WebAssembly.Memory, giving an unnamed file its name, locking bytes of a file, making and opening FIFOs. Also what has to be
 * right even when a thread ends without leaving: the count of the users of a mapping, and a FIFO that was opened and not yet
 * passed on.
 *
 * Freestanding: the binary is linked with Node-API only, which the running Node.js provides. There is no C library, so one file
 * per processor serves glibc and musl. scripts/build-native.mjs builds it and refuses any other symbol.
 *
 * A worker may be terminated at any moment. From then on every function of Node-API may return an error. So each status is
 * checked, and nothing is ever thrown. Every function for JavaScript returns a number: 0 or more, the negated errno, or
 * WRONG_ARGUMENT. Only when Node-API itself fails, it returns `undefined`. A function that has begun runs to its end: a thread is
 * never terminated in the middle of one.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- The used part of Node-API: version 8, which all supported versions of Node.js have ---- */

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_ref__ *napi_ref;
typedef struct napi_callback_info__ *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env env, napi_callback_info info);
typedef int napi_status;
enum { napi_ok = 0 };
enum { napi_enumerable = 2 };
enum { napi_uint8_array = 1, napi_int32_array = 5 };

typedef struct {
  const char *utf8name;
  napi_value name;
  napi_callback method;
  napi_callback getter;
  napi_callback setter;
  napi_value value;
  int attributes;
  void *data;
} napi_property_descriptor;

napi_status napi_get_cb_info(napi_env env, napi_callback_info info, size_t *count, napi_value *arguments,
                             napi_value *receiver, void **data);
napi_status napi_get_value_double(napi_env env, napi_value value, double *result);
napi_status napi_get_value_string_utf8(napi_env env, napi_value value, char *text, size_t size, size_t *length);
napi_status napi_get_typedarray_info(napi_env env, napi_value value, int *type, size_t *length, void **data,
                                     napi_value *buffer, size_t *offset);
napi_status napi_create_int32(napi_env env, int32_t number, napi_value *result);
napi_status napi_create_reference(napi_env env, napi_value value, uint32_t count, napi_ref *result);
napi_status napi_delete_reference(napi_env env, napi_ref reference);
napi_status napi_define_properties(napi_env env, napi_value object, size_t count,
                                   const napi_property_descriptor *properties);
napi_status napi_add_env_cleanup_hook(napi_env env, void (*hook)(void *), void *data);

#define EXPORTED __attribute__((visibility("default")))

/* ---- The system calls of Linux ---- */

#if defined(__x86_64__)
enum { SYS_close = 3, SYS_mmap = 9, SYS_munmap = 11, SYS_fcntl = 72, SYS_flock = 73, SYS_openat = 257, SYS_mknodat = 259 };
enum { SYS_linkat = 265, SYS_fchmodat = 268, SYS_fallocate = 285, SYS_statx = 332 };
enum { O_NOFOLLOW = 0x20000 };
#elif defined(__aarch64__)
enum { SYS_fcntl = 25, SYS_flock = 32, SYS_mknodat = 33, SYS_linkat = 37, SYS_fallocate = 47, SYS_fchmodat = 53 };
enum { SYS_openat = 56, SYS_close = 57, SYS_munmap = 215, SYS_mmap = 222, SYS_statx = 291 };
enum { O_NOFOLLOW = 0x8000 };
#else
#error "Linux on x86-64 and AArch64 only"
#endif

enum { ENOMEM = 12, ENAMETOOLONG = 36 };
enum { PROT_READ_WRITE = 0x1 | 0x2 };
enum { MAP_SHARED = 0x01, MAP_PRIVATE = 0x02, MAP_FIXED = 0x10, MAP_ANONYMOUS = 0x20, MAP_NORESERVE = 0x4000 };
enum { AT_FDCWD = -100, AT_SYMLINK_FOLLOW = 0x400, AT_EMPTY_PATH = 0x1000 };
enum { O_RDWR = 2, O_NONBLOCK = 0x800, O_CLOEXEC = 0x80000 };
enum { S_IFIFO = 0x1000, OWNER_ONLY = 0600 };
enum { F_OFD_GETLK = 36, F_OFD_SETLK = 37, F_WRLCK = 1, F_UNLCK = 2 };
enum { LOCK_EX = 2, LOCK_NB = 4 };

struct flock {
  int16_t type;
  /* The origin of `start`: 0 is the beginning of the file. */
  int16_t whence;
  int64_t start;
  int64_t length;
  /* Has to be 0 for locks of open file descriptions. */
  int32_t pid;
};

enum { STATX_INO = 0x100 };

/** The beginning of Linux's `struct statx`, and room for the rest of its 256 bytes. */
struct statx {
  uint32_t before[8];
  uint64_t inode;
  uint64_t rest[27];
};

_Static_assert(offsetof(struct statx, inode) == 32 && sizeof(struct statx) == 256, "statx has another layout");

/** Makes a system call. Returns its result, or the negated errno. */
static long system_call(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
#else
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
#endif
}

static bool failed(long result) { return result < 0 && result >= -4095; }

/** Maps private zeros in place of anything that is mapped there. Returns 0 or the negated errno. */
static long put_zeros(char *start, size_t length) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  long result = system_call(SYS_mmap, (long)start, (long)length, PROT_READ_WRITE, flags, -1, 0);
  return failed(result) ? result : 0;
}

/** This file allocates its own memory in blocks of one size, in bytes. */
enum { BLOCK = 4096 };

/** Allocates a block of zeros; NULL when there is no memory. */
static void *allocate(void) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
  long result = system_call(SYS_mmap, 0, BLOCK, PROT_READ_WRITE, flags, -1, 0);
  return failed(result) ? NULL : (void *)result;
}

static void release(void *block) { system_call(SYS_munmap, (long)block, BLOCK, 0, 0, 0, 0); }

/* ---- Arguments ---- */

/** The result for wrong arguments, for which no system call is made. No errno is as large. */
enum { WRONG_ARGUMENT = -4096 };

enum { MAX_ARGUMENTS = 3 };
/** Pages in bytes. PAGE: of WebAssembly, which is also the largest page of a kernel. SMALLEST_PAGE: of a kernel. */
enum { PAGE = 65536, SMALLEST_PAGE = 4096 };
static const int64_t MAX_INTEGER = (INT64_C(1) << 53) - 1;

/** What an environment, which is one thread, has to give back when it ends. */
struct thread {
  /** The mappings that it uses. */
  struct use *first;
  /** Whether it has opened a FIFO which it has not passed on yet: descriptor and inode. */
  bool has_fifo;
  int32_t fifo;
  uint64_t fifo_inode;
};

/** One call from JavaScript. Arguments that are missing are `undefined`. */
struct call {
  napi_env env;
  napi_value arguments[MAX_ARGUMENTS];
  /** What this thread has to give back: the same for all calls of an environment. */
  struct thread *thread;
};

static bool begin(struct call *call, napi_env env, napi_callback_info info) {
  size_t count = MAX_ARGUMENTS;
  void *thread;
  call->env = env;
  if (napi_get_cb_info(env, info, &count, call->arguments, NULL, &thread) != napi_ok) return false;
  call->thread = thread;
  return true;
}

/** The number as a value of JavaScript; NULL, which arrives as `undefined`, when Node-API cannot make one. */
static napi_value answer(napi_env env, long result) {
  napi_value value;
  return napi_create_int32(env, (int32_t)result, &value) == napi_ok ? value : NULL;
}

/** Reads a whole number from 0 to `most`; false for anything else. */
static bool get_integer(struct call *call, int index, int64_t most, int64_t *result) {
  double number;
  if (napi_get_value_double(call->env, call->arguments[index], &number) != napi_ok) return false;
  // Written so that NaN fails too.
  if (!(number >= 0 && number <= (double)most)) return false;
  *result = (int64_t)number;
  return (double)*result == number;
}

static bool get_descriptor(struct call *call, int index, int64_t *result) {
  return get_integer(call, index, INT32_MAX, result);
}

/** Reads the memory that a typed array of that type shows; false when it shows none, as after its buffer was detached. */
static bool get_memory(struct call *call, int index, int type, char **start, size_t *length) {
  int actual;
  void *data;
  napi_value buffer;
  size_t offset;
  napi_value value = call->arguments[index];
  if (napi_get_typedarray_info(call->env, value, &actual, length, &data, &buffer, &offset) != napi_ok) return false;
  *start = data;
  return actual == type && data != NULL && *length > 0;
}

/**
 * Reads a range of memory to map. Its length must be whole pages of every kernel, so that no call touches memory behind the
 * range. Its start must be a page of a kernel with the smallest pages; a kernel with larger pages refuses a start that is none.
 */
static bool get_range(struct call *call, int index, char **start, size_t *length) {
  if (!get_memory(call, index, napi_uint8_array, start, length)) return false;
  return (uintptr_t)*start % SMALLEST_PAGE == 0 && *length % PAGE == 0;
}

enum { MAX_PATH = 4096 };

/** Reads the path of a file into `path`, which has room for MAX_PATH bytes. Returns 0, or what to answer instead. */
static long get_path(struct call *call, int index, char *path) {
  size_t length;
  if (napi_get_value_string_utf8(call->env, call->arguments[index], path, MAX_PATH, &length) != napi_ok) {
    return WRONG_ARGUMENT;
  }
  // Node-API cuts a text that does not fit, without an error. It cuts between two characters, so up to three bytes stay free.
  if (length + 4 >= MAX_PATH) return -ENAMETOOLONG;
  for (size_t i = 0; i < length; i++) {
    if (path[i] == '\0') return WRONG_ARGUMENT;
  }
  return 0;
}

/* ---- Files ---- */

/** reserve(fd, offset, length): fallocate, which lets the file grow. */
static napi_value reserve(napi_env env, napi_callback_info info) {
  struct call call;
  int64_t fd, offset, length;
  if (!begin(&call, env, info)) return NULL;
  if (!get_descriptor(&call, 0, &fd) || !get_integer(&call, 1, MAX_INTEGER, &offset) ||
      !get_integer(&call, 2, MAX_INTEGER, &length)) {
    return answer(env, WRONG_ARGUMENT);
  }
  return answer(env, system_call(SYS_fallocate, fd, 0, offset, length, 0, 0));
}

/** Maps the beginning of a file over a range. */
static napi_value map_as(napi_env env, napi_callback_info info, int flags) {
  struct call call;
  int64_t fd;
  char *start;
  size_t length;
  if (!begin(&call, env, info)) return NULL;
  if (!get_descriptor(&call, 0, &fd) || !get_range(&call, 1, &start, &length)) return answer(env, WRONG_ARGUMENT);
  long result = system_call(SYS_mmap, (long)start, (long)length, PROT_READ_WRITE, flags | MAP_FIXED, fd, 0);
  if (!failed(result)) return answer(env, 0);
  // A kernel short of memory may have unmapped the range before it failed. If that hole stayed open, the kernel could give
  // it to an allocation of other code, which would later be unmapped together with this memory.
  put_zeros(start, length);
  return answer(env, result);
}

/** map(fd, range): the range shows the beginning of the file from now on; after a failure it shows zeros. */
static napi_value map(napi_env env, napi_callback_info info) { return map_as(env, info, MAP_SHARED); }

/**
 * mapPrivate(fd, range): as `map`, for a descriptor that was opened for reading only. The range shows the file as it is at each moment.
 * What is written to the range never reaches the file: the first store to a page makes a private copy of that page.
 */
static napi_value map_private(napi_env env, napi_callback_info info) {
  return map_as(env, info, MAP_PRIVATE | MAP_NORESERVE);
}

/** unmap(range): the range shows private zeros in place of a file. */
static napi_value unmap(napi_env env, napi_callback_info info) {
  struct call call;
  char *start;
  size_t length;
  if (!begin(&call, env, info)) return NULL;
  if (!get_range(&call, 0, &start, &length)) return answer(env, WRONG_ARGUMENT);
  return answer(env, put_zeros(start, length));
}

/** link(fd, path): gives a file that has no name the name `path`. */
static napi_value link(napi_env env, napi_callback_info info) {
  struct call call;
  int64_t fd;
  char path[MAX_PATH];
  if (!begin(&call, env, info)) return NULL;
  if (!get_descriptor(&call, 0, &fd)) return answer(env, WRONG_ARGUMENT);
  long error = get_path(&call, 1, path);
  if (error != 0) return answer(env, error);
  char source[32] = "/proc/self/fd/";
  size_t last = sizeof "/proc/self/fd/" - 1;
  for (int64_t rest = fd; rest >= 10; rest /= 10) last++;
  for (int64_t rest = fd; source[last] == '\0'; rest /= 10) source[last--] = (char)('0' + rest % 10);
  return answer(env, system_call(SYS_linkat, AT_FDCWD, (long)source, AT_FDCWD, (long)path, AT_SYMLINK_FOLLOW, 0));
}

static napi_value set_lock(napi_env env, napi_callback_info info, int16_t type) {
  struct call call;
  int64_t fd, byte;
  if (!begin(&call, env, info)) return NULL;
  if (!get_descriptor(&call, 0, &fd) || !get_integer(&call, 1, MAX_INTEGER, &byte)) return answer(env, WRONG_ARGUMENT);
  struct flock lock = {.type = type, .whence = 0, .start = byte, .length = 1, .pid = 0};
  return answer(env, system_call(SYS_fcntl, fd, F_OFD_SETLK, (long)&lock, 0, 0, 0));
}

/** lock(fd, byte): locks the byte for the open file description, without waiting. */
static napi_value lock(napi_env env, napi_callback_info info) { return set_lock(env, info, F_WRLCK); }

/** unlock(fd, byte): gives the lock of the byte back. */
static napi_value unlock(napi_env env, napi_callback_info info) { return set_lock(env, info, F_UNLCK); }

/**
 * isLocked(fd, byte): 1 when another open file description has locked the byte, else 0. Takes no lock, and needs no descriptor that
 * may write.
 */
static napi_value is_locked(napi_env env, napi_callback_info info) {
  struct call call;
  int64_t fd, byte;
  if (!begin(&call, env, info)) return NULL;
  if (!get_descriptor(&call, 0, &fd) || !get_integer(&call, 1, MAX_INTEGER, &byte)) return answer(env, WRONG_ARGUMENT);
  struct flock lock = {.type = F_WRLCK, .whence = 0, .start = byte, .length = 1, .pid = 0};
  long result = system_call(SYS_fcntl, fd, F_OFD_GETLK, (long)&lock, 0, 0, 0);
  return answer(env, failed(result) ? result : lock.type != F_UNLCK);
}

/** lockDirectory(fd): locks the whole directory for the open file description, without waiting. */
static napi_value lock_directory(napi_env env, napi_callback_info info) {
  struct call call;
  int64_t fd;
  if (!begin(&call, env, info)) return NULL;
  if (!get_descriptor(&call, 0, &fd)) return answer(env, WRONG_ARGUMENT);
  return answer(env, system_call(SYS_flock, fd, LOCK_EX | LOCK_NB, 0, 0, 0, 0));
}

/* ---- FIFOs ---- */

/** makeFifo(path): makes a FIFO that only its user may open, whatever the umask is. */
static napi_value make_fifo(napi_env env, napi_callback_info info) {
  struct call call;
  char path[MAX_PATH];
  if (!begin(&call, env, info)) return NULL;
  long result = get_path(&call, 0, path);
  if (result == 0) result = system_call(SYS_mknodat, AT_FDCWD, (long)path, S_IFIFO | OWNER_ONLY, 0, 0, 0);
  if (result == 0) result = system_call(SYS_fchmodat, AT_FDCWD, (long)path, OWNER_ONLY, 0, 0, 0);
  return answer(env, result);
}

/** The inode of an open file; 0, which is the inode of no file, when the kernel does not tell. */
static uint64_t inode_of(int32_t fd) {
  struct statx found = {0};
  long result = system_call(SYS_statx, fd, (long)"", AT_EMPTY_PATH, STATX_INO, (long)&found, 0);
  return result == 0 ? found.inode : 0;
}

/**
 * openFifo(path): opens a FIFO for reading and writing. Returns the descriptor, which belongs to this file until `passFifo`.
 *
 * Node.js must not know the descriptor as one of `node:fs`. A worker that ends closes all of those by their number. But the
 * descriptor will belong to a pipe of libuv, which closes it as well. Between the two another thread may get the same number
 * for a file of its own, and would find that file closed.
 */
static napi_value open_fifo(napi_env env, napi_callback_info info) {
  struct call call;
  char path[MAX_PATH];
  if (!begin(&call, env, info)) return NULL;
  long result = get_path(&call, 0, path);
  if (result == 0) {
    const int flags = O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC;
    result = system_call(SYS_openat, AT_FDCWD, (long)path, flags, 0, 0, 0);
  }
  if (!failed(result)) {
    struct thread *thread = call.thread;
    thread->fifo = (int32_t)result;
    thread->fifo_inode = inode_of(thread->fifo);
    thread->has_fifo = true;
  }
  return answer(env, result);
}

/** passFifo(fd): from here on libuv closes the descriptor, which the latest `openFifo` has returned. */
static napi_value pass_fifo(napi_env env, napi_callback_info info) {
  struct call call;
  int64_t fd;
  if (!begin(&call, env, info)) return NULL;
  if (!get_descriptor(&call, 0, &fd) || !call.thread->has_fifo || call.thread->fifo != fd) {
    return answer(env, WRONG_ARGUMENT);
  }
  call.thread->has_fifo = false;
  return answer(env, 0);
}

/**
 * Closes the FIFO of a thread that was terminated between `openFifo` and `passFifo`. If libuv has it already, libuv has closed
 * it by now, and the descriptor may be that of another file.
 */
static void close_fifo(struct thread *thread) {
  if (!thread->has_fifo || thread->fifo_inode == 0 || inode_of(thread->fifo) != thread->fifo_inode) return;
  system_call(SYS_close, thread->fifo, 0, 0, 0, 0, 0);
}

/* ---- The users of a mapping ---- */

/** One mapping that this thread uses. */
struct use {
  struct use *next;
  /** Counts the users in all threads; -1 for ever once the file was unmapped. */
  int32_t *users;
  char *start;
  size_t length;
  /** How many of these users belong to this thread. */
  int32_t count;
  /** References that keep both memories while this thread has users, even if JavaScript has dropped them. */
  napi_ref users_alive;
  napi_ref range_alive;
};

_Static_assert(sizeof(struct use) <= BLOCK && sizeof(struct thread) <= BLOCK, "blocks are too small");

/**
 * Removes `count` users from the mapping. The very last user of all threads unmaps the file, and then no thread can join any
 * more. Returns whether the file was unmapped.
 */
static bool give_back(struct use *use, int32_t count) {
  int32_t expected = 0;
  if (__atomic_sub_fetch(use->users, count, __ATOMIC_SEQ_CST) != 0) return false;
  // Another thread may have joined in between. Then it is the one to unmap the file.
  if (!__atomic_compare_exchange_n(use->users, &expected, -1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) return false;
  put_zeros(use->start, use->length);
  return true;
}

/** Runs at the end of the environment. No JavaScript of this thread runs any more, but what it refers to still exists. */
static void give_all_back(void *data) {
  struct thread *thread = data;
  close_fifo(thread);
  for (struct use *use = thread->first, *next; use != NULL; use = next) {
    next = use->next;
    give_back(use, use->count);
    release(use);
  }
  release(thread);
}

/** The link to the use of the mapping with these users, or the last link, to which a new use is added. */
static struct use **find_use(struct thread *thread, const char *users) {
  struct use **at = &thread->first;
  while (*at != NULL && (char *)(*at)->users != users) at = &(*at)->next;
  return at;
}

static bool get_users(struct call *call, int index, char **users) {
  size_t length;
  return get_memory(call, index, napi_int32_array, users, &length) && (uintptr_t)*users % sizeof(int32_t) == 0;
}

/**
 * join(users, range): adds one user. The user is removed when this thread ends, unless it leaves before. Returns 1, or 0 when the
 * file has been unmapped.
 */
static napi_value join(napi_env env, napi_callback_info info) {
  struct call call;
  char *users, *start;
  size_t length;
  if (!begin(&call, env, info)) return NULL;
  if (!get_users(&call, 0, &users) || !get_range(&call, 1, &start, &length)) return answer(env, WRONG_ARGUMENT);
  struct use **at = find_use(call.thread, users);
  struct use *use = *at;
  if (use == NULL) {
    use = allocate();
    if (use == NULL) return answer(env, -ENOMEM);
    use->users = (int32_t *)users;
    use->start = start;
    use->length = length;
    if (napi_create_reference(env, call.arguments[0], 1, &use->users_alive) != napi_ok) {
      release(use);
      return answer(env, -ENOMEM);
    }
    if (napi_create_reference(env, call.arguments[1], 1, &use->range_alive) != napi_ok) {
      napi_delete_reference(env, use->users_alive);
      release(use);
      return answer(env, -ENOMEM);
    }
  } else if (use->start != start || use->length != length) {
    return answer(env, WRONG_ARGUMENT);
  }
  int32_t count = __atomic_load_n(use->users, __ATOMIC_SEQ_CST);
  // Ends when the word did not change for one round: only threads that join and leave change it.
  while (count >= 0 && !__atomic_compare_exchange_n(use->users, &count, count + 1, false, __ATOMIC_SEQ_CST,
                                                    __ATOMIC_SEQ_CST)) {
  }
  if (count >= 0) {
    use->count++;
    *at = use;
    return answer(env, 1);
  }
  // The file was unmapped, so no thread has users any more. If this thread seems to have some, the arguments are wrong.
  if (use->count > 0) return answer(env, WRONG_ARGUMENT);
  napi_delete_reference(env, use->users_alive);
  napi_delete_reference(env, use->range_alive);
  release(use);
  return answer(env, 0);
}

/** leave(users): removes one user. Returns 1 when it was the very last one, so that the file was unmapped, otherwise 0. */
static napi_value leave(napi_env env, napi_callback_info info) {
  struct call call;
  char *users;
  if (!begin(&call, env, info)) return NULL;
  if (!get_users(&call, 0, &users)) return answer(env, WRONG_ARGUMENT);
  struct use **at = find_use(call.thread, users);
  struct use *use = *at;
  if (use == NULL) return answer(env, WRONG_ARGUMENT);
  bool last = give_back(use, 1);
  if (--use->count == 0) {
    *at = use->next;
    napi_delete_reference(env, use->users_alive);
    napi_delete_reference(env, use->range_alive);
    release(use);
  }
  return answer(env, last);
}

/* ---- The module ---- */

EXPORTED int32_t node_api_module_get_api_version_v1(void) { return 8; }

/** Runs once per environment. After an error the exports lack functions, which src/system/binary.ts notices. */
EXPORTED napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  static const struct {
    const char *name;
    napi_callback method;
  } functions[] = {
      {"reserve", reserve},
      {"map", map},
      {"mapPrivate", map_private},
      {"unmap", unmap},
      {"link", link},
      {"lock", lock},
      {"unlock", unlock},
      {"isLocked", is_locked},
      {"lockDirectory", lock_directory},
      {"makeFifo", make_fifo},
      {"openFifo", open_fifo},
      {"passFifo", pass_fifo},
      {"join", join},
      {"leave", leave},
  };
  enum { COUNT = sizeof functions / sizeof *functions };
  struct thread *thread = allocate();
  if (thread == NULL) return NULL;
  if (napi_add_env_cleanup_hook(env, give_all_back, thread) != napi_ok) {
    release(thread);
    return NULL;
  }
  // Not in static memory, where their addresses would need relocations.
  napi_property_descriptor properties[COUNT];
  for (size_t i = 0; i < COUNT; i++) {
    properties[i] = (napi_property_descriptor){
        .utf8name = functions[i].name,
        .method = functions[i].method,
        .attributes = napi_enumerable,
        .data = thread,
    };
  }
  return napi_define_properties(env, exports, COUNT, properties) == napi_ok ? exports : NULL;
}
