/* Shifts the wall clock of the programs of one network namespace: LD_PRELOAD of `traffic.py`.
 *
 * The folder $OTHERIX_TEST_CLOCKS has a file for each namespace, named after its inode, with the seconds to add as a
 * decimal number. Programs in Rust and C read the clock by the functions below; those in Go are not affected. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int file = -1;
static int (*read_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
    const char *folder = getenv("OTHERIX_TEST_CLOCKS");
    struct stat namespace;
    char path[PATH_MAX];
    read_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (!folder || stat("/proc/self/ns/net", &namespace))
        return;
    snprintf(path, sizeof path, "%s/%lu", folder, (unsigned long)namespace.st_ino);
    file = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
}

static long shift(void)
{
    char text[32];
    ssize_t length = file < 0 ? 0 : pread(file, text, sizeof text - 1, 0);
    text[length < 0 ? 0 : length] = 0;
    return strtol(text, NULL, 10);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result;
    if (!read_clock)
        begin();
    result = read_clock(clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += shift();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    (void)zone;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return result;
}

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}
