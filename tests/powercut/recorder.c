/* Records what a process does to the files of one folder, in the order in which it is done. For LD_PRELOAD.

   POWERCUT_FOLDER is the folder, POWERCUT_LOG the file for the record; recording.py says what a record looks like.
   One lock orders all: an operation is done and recorded under it. A sync is recorded when it begins and when it ends,
   with others in between; it is not really done, for nothing is to be cut here. Shared mappings are compared with what
   they were at each operation, and recorded page by page. What is written to descriptor 1 is recorded too. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES 65536
#define MAPS 64
#define PAGE 4096
#define RWF_DSYNC_FLAG 2

struct record {
    char kind;
    uint64_t file;
    int64_t first, second;
    uint32_t path_size, data_size;
} __attribute__((packed));

struct map {
    char *at, *shadow;
    size_t size;
    uint64_t file;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static size_t folder_size;
static int log_fd = -1;
static uint64_t files[FILES];  /* inode by descriptor; 0: none of ours */
static struct map maps[MAPS];
static int64_t syncs;

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void begin(void)
{
    folder = getenv("POWERCUT_FOLDER");
    const char *log = getenv("POWERCUT_LOG");
    if (!folder || !log) return;
    folder_size = strlen(folder);
    log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) abort();
}

static void put(char kind, uint64_t file, int64_t first, int64_t second, const char *path, const void *data, size_t size)
{
    struct record head = {kind, file, first, second, path ? strlen(path) : 0, size};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)path, head.path_size}, {(void *)data, size}};
    size_t whole = sizeof head + head.path_size + size;
    if (syscall(SYS_writev, log_fd, parts, 3) != (ssize_t)whole) abort();
}

/* A page is copied until two copies agree: other threads write to it meanwhile. */
static void put_maps(void)
{
    char first[PAGE], again[PAGE];
    for (struct map *map = maps; map < maps + MAPS; map++)
        for (size_t at = 0; map->at && at < map->size; at += PAGE) {
            size_t size = map->size - at < PAGE ? map->size - at : PAGE;
            if (!memcmp(map->at + at, map->shadow + at, size)) continue;
            do {
                memcpy(first, map->at + at, size);
                __sync_synchronize();
                memcpy(again, map->at + at, size);
            } while (memcmp(first, again, size));
            memcpy(map->shadow + at, first, size);
            put('P', map->file, at, 0, NULL, first, size);
        }
}

static void note(char kind, uint64_t file, int64_t first, int64_t second, const char *path, const void *data, size_t size)
{
    int kept = errno;
    put_maps();
    put(kind, file, first, second, path, data, size);
    errno = kept;
}

static int ours(const char *path)
{
    return log_fd >= 0 && !strncmp(path, folder, folder_size) && (path[folder_size] == '/' || !path[folder_size]);
}

static uint64_t file_of(int fd)
{
    return log_fd >= 0 && fd >= 0 && fd < FILES ? files[fd] : 0;
}

static void disk_time(void)
{
    struct timespec time = {0, 200000};
    nanosleep(&time, NULL);
}

static int do_open(int at, const char *path, int flags, mode_t mode)
{
    if (!ours(path)) return syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    int is_new = (flags & O_CREAT) && faccessat(AT_FDCWD, path, F_OK, 0);
    int fd = syscall(SYS_openat, at, path, flags, mode);
    struct stat facts;
    if (fd >= 0 && fd < FILES && !fstat(fd, &facts)) {
        files[fd] = facts.st_ino;
        if (is_new) note('C', facts.st_ino, 0, 0, path, NULL, 0);
        else if (flags & O_TRUNC) note('T', facts.st_ino, 0, 0, NULL, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return do_open(AT_FDCWD, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
int __open_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }

#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) \
    { \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return do_open(at, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd)
{
    if (!file_of(fd)) return syscall(SYS_close, fd);
    pthread_mutex_lock(&lock);
    put_maps();
    files[fd] = 0;
    int result = syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int fd, const void *data, size_t size)
{
    uint64_t file = file_of(fd);
    if (!file && (log_fd < 0 || fd != 1)) return syscall(SYS_write, fd, data, size);
    pthread_mutex_lock(&lock);
    off_t at = file ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t result = syscall(SYS_write, fd, data, size);
    if (result > 0) note(file ? 'W' : 'K', file, at, 0, NULL, data, result);
    pthread_mutex_unlock(&lock);
    return result;
}

static ssize_t do_pwrite(int fd, const void *data, size_t size, off64_t at)
{
    uint64_t file = file_of(fd);
    if (!file) return syscall(SYS_pwrite64, fd, data, size, at);
    pthread_mutex_lock(&lock);
    ssize_t result = syscall(SYS_pwrite64, fd, data, size, at);
    if (result > 0) note('W', file, at, 0, NULL, data, result);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return do_pwrite(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return do_pwrite(fd, data, size, at); }

static ssize_t do_pwritev(int fd, const struct iovec *parts, int number, off64_t at, int flags)
{
    uint64_t file = file_of(fd);
    if (!file) return syscall(SYS_pwritev2, fd, parts, number, at, 0, flags);
    pthread_mutex_lock(&lock);
    int64_t sync = flags & RWF_DSYNC_FLAG ? ++syncs : 0;
    ssize_t result = syscall(SYS_pwritev2, fd, parts, number, at, 0, flags & ~RWF_DSYNC_FLAG);
    if (result > 0) {
        char *data = malloc(result);
        size_t had = 0;
        for (const struct iovec *part = parts; had < (size_t)result; part++) {
            size_t size = part->iov_len < result - had ? part->iov_len : result - had;
            memcpy(data + had, part->iov_base, size);
            had += size;
        }
        note('W', file, at, sync, NULL, data, result);
        free(data);
        if (sync) {
            pthread_mutex_unlock(&lock);
            disk_time();
            pthread_mutex_lock(&lock);
            note('w', file, sync, 0, NULL, NULL, 0);
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwritev(int fd, const struct iovec *parts, int number, off_t at) { return do_pwritev(fd, parts, number, at, 0); }
ssize_t pwritev64(int fd, const struct iovec *parts, int number, off64_t at) { return do_pwritev(fd, parts, number, at, 0); }
ssize_t pwritev2(int fd, const struct iovec *parts, int number, off_t at, int flags) { return do_pwritev(fd, parts, number, at, flags); }
ssize_t pwritev64v2(int fd, const struct iovec *parts, int number, off64_t at, int flags) { return do_pwritev(fd, parts, number, at, flags); }

static int do_sync(int fd, int call)
{
    uint64_t file = file_of(fd);
    if (!file) return syscall(call, fd);
    pthread_mutex_lock(&lock);
    int64_t sync = ++syncs;
    note('S', file, sync, 0, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    disk_time();
    pthread_mutex_lock(&lock);
    note('s', file, sync, 0, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return do_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return do_sync(fd, SYS_fdatasync); }

static int do_truncate(int fd, off64_t size)
{
    uint64_t file = file_of(fd);
    if (!file) return syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_ftruncate, fd, size);
    if (!result) note('T', file, size, 0, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t size) { return do_truncate(fd, size); }
int ftruncate64(int fd, off64_t size) { return do_truncate(fd, size); }

static int do_allocate(int fd, off64_t at, off64_t size)
{
    REAL(int, "posix_fallocate64", int, off64_t, off64_t);
    uint64_t file = file_of(fd);
    if (!file) return real(fd, at, size);
    pthread_mutex_lock(&lock);
    int result = real(fd, at, size);
    if (!result) note('A', file, at, size, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int posix_fallocate(int fd, off_t at, off_t size) { return do_allocate(fd, at, size); }
int posix_fallocate64(int fd, off64_t at, off64_t size) { return do_allocate(fd, at, size); }

int unlink(const char *path)
{
    if (!ours(path)) return syscall(SYS_unlink, path);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_unlink, path);
    if (!result) note('U', 0, 0, 0, path, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    if (!ours(path)) return syscall(SYS_mkdir, path, mode);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_mkdir, path, mode);
    struct stat facts;
    if (!result && !stat(path, &facts)) note('M', facts.st_ino, 0, 0, path, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int rename(const char *from, const char *to)
{
    if (!ours(from) && !ours(to)) return syscall(SYS_rename, from, to);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_rename, from, to);
    struct stat facts;
    if (!result && !stat(to, &facts)) note('R', facts.st_ino, 0, 0, to, from, strlen(from));
    pthread_mutex_unlock(&lock);
    return result;
}

/* Not recorded: whoever begins to use one must be told that the record would not be true. */
#define REFUSE(path) \
    if (ours(path)) abort()

int link(const char *from, const char *to)
{
    REFUSE(to);
    return syscall(SYS_link, from, to);
}

int rmdir(const char *path)
{
    REFUSE(path);
    return syscall(SYS_rmdir, path);
}

int truncate(const char *path, off_t size)
{
    REFUSE(path);
    return syscall(SYS_truncate, path, size);
}

int truncate64(const char *path, off64_t size)
{
    REFUSE(path);
    return syscall(SYS_truncate, path, size);
}

static void *do_map(void *where, size_t size, int rights, int flags, int fd, off64_t at)
{
    void *result = (void *)syscall(SYS_mmap, where, size, rights, flags, fd, at);
    uint64_t file = file_of(fd);
    if (result == MAP_FAILED || !file || !(flags & MAP_SHARED) || !(rights & PROT_WRITE)) return result;
    pthread_mutex_lock(&lock);
    for (struct map *map = maps; map <= maps + MAPS; map++) {
        if (map == maps + MAPS || at) abort();
        if (map->at) continue;
        *map = (struct map){result, malloc(size), size, file};
        memcpy(map->shadow, result, size);
        for (size_t page = 0; page < size; page += PAGE)
            put('P', file, page, 0, NULL, map->shadow + page, size - page < PAGE ? size - page : PAGE);
        break;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

void *mmap(void *where, size_t size, int rights, int flags, int fd, off_t at) { return do_map(where, size, rights, flags, fd, at); }
void *mmap64(void *where, size_t size, int rights, int flags, int fd, off64_t at) { return do_map(where, size, rights, flags, fd, at); }

static struct map *map_at(void *at)
{
    for (struct map *map = maps; at && map < maps + MAPS; map++)
        if (map->at == at) return map;
    return NULL;
}

void *mremap(void *at, size_t size, size_t wanted, int flags, ...)
{
    pthread_mutex_lock(&lock);
    struct map *map = map_at(at);
    if (map) put_maps();
    void *result = (void *)syscall(SYS_mremap, at, size, wanted, flags, NULL);
    if (map && result != MAP_FAILED) {
        map->at = result;
        map->shadow = realloc(map->shadow, wanted);
        if (wanted > map->size) memset(map->shadow + map->size, 0, wanted - map->size);
        map->size = wanted;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int munmap(void *at, size_t size)
{
    pthread_mutex_lock(&lock);
    struct map *map = map_at(at);
    if (map) {
        put_maps();
        free(map->shadow);
        *map = (struct map){0};
    }
    pthread_mutex_unlock(&lock);
    return syscall(SYS_munmap, at, size);
}
