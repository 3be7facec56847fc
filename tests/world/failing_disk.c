/* A disk that fails when it is told to: preloaded, it makes calls on files below a folder fail.
 *
 * FAILING_DISK_FOLDER names the folder, FAILING_DISK_PLAN a file of ten 32-bit integers that whoever is in charge writes
 * and this reads while it runs: which calls are meant (1 writes, 2 syncs, 4 truncations and allocations, 8 fsync of
 * folders), how many of them are let pass first, how many fail then (-1: all), errno, which files (1 index, 2 log,
 * 4 segments, 8 the rest), whether the file system says that it is full, and three counts: the calls that were meant,
 * those that failed, and those that came after a failure;
 * the last one is not 0 once the reserve was removed on a full disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITES = 1, SYNCS = 2, SIZES = 4, FOLDERS = 8 };
enum { INDEX = 1, LOG = 2, SEGMENTS = 4, REST = 8 };

struct plan {
    volatile int32_t calls, pass, fail, number, files, full, meant, failed, after, spent;
};

static struct plan *plan;
static const char *folder;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FAILING_DISK_PLAN");
    folder = getenv("FAILING_DISK_FOLDER");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *at = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at != MAP_FAILED)
            plan = at;
        close(fd);
    }
}

static int kind_of(const char *path)
{
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    if (!strcmp(name, "queue.db"))
        return INDEX;
    if (!strcmp(name, "queue.db-wal"))
        return LOG;
    return strstr(path, "/segments") ? SEGMENTS : REST;
}

/* Whether this call is to fail now. */
static int fails(int fd, int call)
{
    char link[64], path[PATH_MAX];
    if (!plan || !folder || !(plan->calls & call))
        return 0;
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0)
        return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)) || !(plan->files & kind_of(path)))
        return 0;
    __sync_fetch_and_add(&plan->meant, 1);
    if (plan->pass > 0) {
        __sync_fetch_and_sub(&plan->pass, 1);
        return 0;
    }
    if (plan->fail == 0) {
        if (plan->failed)
            __sync_fetch_and_add(&plan->after, 1);
        return 0;
    }
    if (plan->fail > 0)
        __sync_fetch_and_sub(&plan->fail, 1);
    __sync_fetch_and_add(&plan->failed, 1);
    errno = plan->number;
    return 1;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    return fails(fd, WRITES) ? -1 : real(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    REAL(pwrite);
    return fails(fd, WRITES) ? -1 : real(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    REAL(pwrite64);
    return fails(fd, WRITES) ? -1 : real(fd, data, size, at);
}

ssize_t pwritev(int fd, const struct iovec *data, int count, off_t at)
{
    REAL(pwritev);
    return fails(fd, WRITES) ? -1 : real(fd, data, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *data, int count, off64_t at)
{
    REAL(pwritev64);
    return fails(fd, WRITES) ? -1 : real(fd, data, count, at);
}

ssize_t pwritev2(int fd, const struct iovec *data, int count, off_t at, int flags)
{
    REAL(pwritev2);
    return fails(fd, WRITES) || ((flags & RWF_DSYNC) && fails(fd, SYNCS)) ? -1 : real(fd, data, count, at, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec *data, int count, off64_t at, int flags)
{
    REAL(pwritev64v2);
    return fails(fd, WRITES) || ((flags & RWF_DSYNC) && fails(fd, SYNCS)) ? -1 : real(fd, data, count, at, flags);
}

static int sync_call(int fd)
{
    struct stat facts;
    return !fstat(fd, &facts) && S_ISDIR(facts.st_mode) ? FOLDERS : SYNCS;
}

int fsync(int fd)
{
    REAL(fsync);
    return fails(fd, sync_call(fd)) ? -1 : real(fd);
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    return fails(fd, sync_call(fd)) ? -1 : real(fd);
}

/* A file that gets shorter needs no room. */
static int grows(int fd, off64_t size)
{
    struct stat facts;
    return !fstat(fd, &facts) && size > facts.st_size;
}

int ftruncate(int fd, off_t size)
{
    REAL(ftruncate);
    return (!plan || !plan->full || grows(fd, size)) && fails(fd, SIZES) ? -1 : real(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    REAL(ftruncate64);
    return (!plan || !plan->full || grows(fd, size)) && fails(fd, SIZES) ? -1 : real(fd, size);
}

int posix_fallocate(int fd, off_t at, off_t size)
{
    REAL(posix_fallocate);
    return fails(fd, SIZES) ? errno : real(fd, at, size);
}

int posix_fallocate64(int fd, off64_t at, off64_t size)
{
    REAL(posix_fallocate64);
    return fails(fd, SIZES) ? errno : real(fd, at, size);
}

/* What the reserve took is room again: writes pass from here on, though there is none for mail. */
int unlink(const char *path)
{
    REAL(unlink);
    int result = real(path);
    if (!result && plan && plan->full && folder && !strncmp(path, folder, strlen(folder)) && strstr(path, "/reserve"))
        plan->spent = plan->pass = 1 << 20;
    return result;
}

int statvfs(const char *path, struct statvfs *facts)
{
    REAL(statvfs);
    int result = real(path, facts);
    if (!result && plan && plan->full && (plan->pass <= 0 || plan->spent) && folder && !strncmp(path, folder, strlen(folder)))
        facts->f_bavail = facts->f_bfree = 0;
    return result;
}

int statvfs64(const char *path, struct statvfs64 *facts)
{
    REAL(statvfs64);
    int result = real(path, facts);
    if (!result && plan && plan->full && (plan->pass <= 0 || plan->spent) && folder && !strncmp(path, folder, strlen(folder)))
        facts->f_bavail = facts->f_bfree = 0;
    return result;
}
