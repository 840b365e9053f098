/* Counts what a process does to its disk, to its CA and to its broker, and kills it before one of these steps.
 *
 * Loaded into the unmodified agent by LD_PRELOAD: SIGKILL falls inside the process, at a call and not at a moment, and
 * nothing of the process runs afterwards. The board is a file that the test and all lives of the agent share:
 *
 *   0 on         count at all
 *   1 kind       of the step to die before: 0 disk and CA, 1 broker
 *   2 number     of that step, from 1; 0: none
 *   3 counted    steps of kind 0
 *   4 counted    steps of kind 1
 *   5 ca_port
 *   6 broker_port
 *
 * A step is what another could see when the process dies: a file made, written, renamed or removed below the state
 * folder, a link, a folder; a connection to the CA, a message sent to it, an answer read from it (which has arrived by
 * then: the CA has done its part); bytes sent to the broker. Syncing changes nothing for whoever is killed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ON, KIND, NUMBER, COUNTED, CA_PORT = COUNTED + 2, BROKER_PORT, FIELDS };
enum { LOCAL, BROKER };

static _Atomic uint32_t *board;
static int steps_log = -1;
static char state[PATH_MAX];
static atomic_bool awaits_answer[4096];

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("KILL_BOARD"), *below = getenv("KILL_BELOW"), *log = getenv("KILL_LOG");
    if (!file || !below || !log || strlen(below) >= sizeof state) return;
    strcpy(state, below);
    int fd = open(file, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *map = mmap(NULL, FIELDS * sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) return;
    steps_log = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    board = map;
}

static int counting(void) { return board && board[ON]; }

/* The next step; the process ends here when it is the one. `answer_on`: the socket whose answer is awaited first. */
static void step(int kind, const char *what, const char *about, int answer_on) {
    int error = errno;
    uint32_t number = atomic_fetch_add(&board[COUNTED + kind], 1) + 1;
    dprintf(steps_log, "%s %u: %s %s\n", kind == LOCAL ? "step" : "broker", number, what, about);
    if (board[KIND] == (uint32_t)kind && board[NUMBER] == number) {
        struct pollfd answer = {.fd = answer_on, .events = POLLIN};
        if (answer_on >= 0) poll(&answer, 1, 30000);
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    errno = error;
}

static const char *below(const char *path) {
    size_t length = strlen(state);
    return path && strncmp(path, state, length) == 0 && path[length] == '/' ? path + length + 1 : NULL;
}

static void path_step(const char *what, const char *path) {
    const char *inside = counting() ? below(path) : NULL;
    if (inside) step(LOCAL, what, inside, -1);
}

/* What a descriptor leads to: a file below the state folder (its name goes to `name`), or a peer's port. */
static const char *file_of(int fd, char *name) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, PATH_MAX - 1);
    if (length < 0) return NULL;
    name[length] = 0;
    return below(name);
}

static unsigned port_of(const struct sockaddr *address) {
    if (address->sa_family == AF_INET) return ntohs(((const struct sockaddr_in *)address)->sin_port);
    if (address->sa_family == AF_INET6) return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
    return 0;
}

static unsigned peer_of(int fd) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    return getpeername(fd, (struct sockaddr *)&peer, &length) == 0 ? port_of((struct sockaddr *)&peer) : 0;
}

static void bytes_step(int fd) {
    int error = errno;
    if (!counting()) return;
    unsigned port = peer_of(fd);
    if (port && port == board[CA_PORT]) {
        step(LOCAL, "send", "to the CA", -1);
        if (fd >= 0 && fd < 4096) awaits_answer[fd] = 1;
    } else if (port && port == board[BROKER_PORT]) {
        step(BROKER, "send", "to the broker", -1);
    } else if (!port) {
        char name[PATH_MAX];
        const char *inside = file_of(fd, name);
        if (inside) step(LOCAL, "write", inside, -1);
    }
    errno = error;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

int open64(const char *path, int flags, ...) {
    REAL(int, open64, const char *, int, ...);
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
        path_step("make", path);
    }
    return real(path, flags, mode);
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    path_step("rename to", to);
    return real(from, to);
}

int symlink(const char *target, const char *path) {
    REAL(int, symlink, const char *, const char *);
    path_step("link", path);
    return real(target, path);
}

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    path_step("remove", path);
    return real(path);
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    char name[PATH_MAX];
    if (counting() && folder != AT_FDCWD && file_of(folder, name)) step(LOCAL, "remove from a folder", path, -1);
    return real(folder, path, flags);
}

int rmdir(const char *path) {
    REAL(int, rmdir, const char *);
    path_step("remove folder", path);
    return real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    path_step("make folder", path);
    return real(path, mode);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t);
    bytes_step(fd);
    return real(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    bytes_step(fd);
    return real(fd, parts, count);
}

ssize_t send(int fd, const void *bytes, size_t count, int flags) {
    REAL(ssize_t, send, int, const void *, size_t, int);
    bytes_step(fd);
    return real(fd, bytes, count, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    REAL(ssize_t, sendmsg, int, const struct msghdr *, int);
    bytes_step(fd);
    return real(fd, message, flags);
}

ssize_t recv(int fd, void *bytes, size_t count, int flags) {
    REAL(ssize_t, recv, int, void *, size_t, int);
    if (counting() && fd >= 0 && fd < 4096 && awaits_answer[fd]) {
        awaits_answer[fd] = 0;
        step(LOCAL, "read the answer", "of the CA", fd);
    }
    return real(fd, bytes, count, flags);
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    REAL(int, connect, int, const struct sockaddr *, socklen_t);
    if (counting() && port_of(address) == board[CA_PORT]) step(LOCAL, "connect", "to the CA", -1);
    return real(fd, address, length);
}
