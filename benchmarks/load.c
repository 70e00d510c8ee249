/*
 * A POP3 load generator that costs little: sequential sessions from a few client processes.
 *
 *   load KEY=VALUE...        see options[] below; prints one line of JSON, or an error and exits 1
 *
 * Every reply is checked: its status, how many lines it has, the sum of the sizes, and the octets
 * of each message.  So no server is fast by being wrong.  Build with -DTLS -lssl -lcrypto for TLS.
 */
#define _GNU_SOURCE
#include "pop3.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Return the seconds that passed while nobody waited for the server. */
static double deliver(long user, long serial)
{
    char name[1200];
    double begun = now();
    snprintf(name, sizeof name, "%s/%s%ld/new/%ld.P%dQ%ld.bench-new", TEXT("deliver"),
             TEXT("user"), user, (long)time(NULL), getpid(), serial);
    if (link(TEXT("template"), name))
        die("%s: %s", name, strerror(errno));
    usleep((useconds_t)(NUMBER("pause") * 1e6));
    return now() - begun;
}

static void session(struct connection *c, int process, long user, long messages)
{
    const char *work = TEXT("work");
    open_connection(c, process);
    log_in(c, user);
    if (strcmp(work, "login")) {
        char *rest;
        long each = (long)NUMBER("octets"), wire = (long)NUMBER("wire");
        command(c, "STAT\r\n");
        char *answer = ok(c, "STAT");
        if (strtol(answer, &rest, 10) != messages || strtol(rest, &rest, 10) != messages * each)
            die("STAT: %s, not %ld %ld", answer, messages, messages * each);
        check_listing(c, "UIDL", messages, 0);
        check_listing(c, "LIST", messages, each);
        if (!strcmp(work, "retr"))
            retrieve(c, messages, wire, 1);
        else if (!strcmp(work, "pipe"))
            retrieve(c, messages, wire, (long)NUMBER("window"));
    }
    close_connection(c);
}

struct result { long sessions, resumed; double seconds; };

static struct result client(int process)
{
    struct connection c = {0};
    struct result result = {0};
    int processes = (int)NUMBER("processes");
    long own = (long)NUMBER("users") / processes, messages = (long)NUMBER("messages");
    long limit = (long)NUMBER("limit");
    double begun = now(), paused = 0, due = begun;
    FILE *times = *TEXT("times") ? fopen(TEXT("times"), "a") : NULL;
    if (own < 1)
        die("load: fewer users than processes");
    if (times)
        setlinebuf(times);
    do {
        long user = process + processes * (result.sessions % own);
        if (*TEXT("deliver")) {
            paused += deliver(user, result.sessions);
            messages = (long)NUMBER("messages") + result.sessions / own + 1;
        }
        session(&c, process, user, messages);
        if (times)
            fprintf(times, "%.6f %.6f\n", due, now() - due);
        if (NUMBER("every") > 0) { /* one that was kept waiting is late, and so are all behind it */
            due += NUMBER("every");
            if (due > now())
                usleep((useconds_t)((due - now()) * 1e6));
        } else
            due = now();
    } while (++result.sessions < limit && now() - begun < NUMBER("seconds"));
    result.seconds = now() - begun - paused;
    result.resumed = resumed;
    return result;
}

static void stall(struct connection *c)
{
    command(c, "%s\r\n", TEXT("ask"));
    ok(c, TEXT("ask"));
    while (c->end - c->start < NUMBER("stop"))
        if (!fill(c))
            die("%s: the server closed the connection", TEXT("ask"));
    free(c->buffer);
    *c = (struct connection){.fd = c->fd};
}

static void hold(void)
{
    int stalled = !strcmp(TEXT("work"), "stall");
    long count = (long)NUMBER("limit");
    struct connection *all = calloc((size_t)count, sizeof *all);
    char byte;
    for (long i = 0; i < count; i++) {
        open_connection(&all[i], (int)(i % MAX_PROCESSES));
        log_in(&all[i], i);
        if (stalled)
            stall(&all[i]);
    }
    printf("{\"sessions\": %ld}\n", count);
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    for (long i = 0; i < count && !stalled; i++)
        close_connection(&all[i]);
}

static double cpu(int who)
{
    struct rusage used;
    getrusage(who, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
        + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

int main(int count, char **arguments)
{
    for (int i = 1; i < count; i++) {
        char *value = strchr(arguments[i], '=');
        if (!value)
            die("load: %s has no =", arguments[i]);
        *value++ = 0;
        int place = option(arguments[i]);
        options[place].number = atof(value);
        snprintf(options[place].text, sizeof options[place].text, "%s", value);
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prepare_tls();
    if (!strcmp(TEXT("work"), "hold") || !strcmp(TEXT("work"), "stall")) {
        hold();
        return 0;
    }
    int processes = (int)NUMBER("processes"), ends[2], failed = 0, status;
    if (processes < 1 || processes > MAX_PROCESSES || pipe(ends))
        die("load: %d processes", processes);
    for (int process = 0; process < processes; process++)
        if (!fork()) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            struct result result = client(process);
            if (write(ends[1], &result, sizeof result) != sizeof result)
                die("load: the pipe broke");
            exit(0);
        }
    while (wait(&status) > 0)
        failed |= status;
    if (failed)
        return 1;
    struct result sum = {0}, one;
    double rate = 0;
    for (int process = 0; process < processes; process++) {
        if (read(ends[0], &one, sizeof one) != sizeof one)
            die("load: a process is missing");
        sum.sessions += one.sessions;
        sum.resumed += one.resumed;
        rate += (double)one.sessions / one.seconds;
    }
    printf("{\"sessions\": %ld, \"resumed\": %ld, \"rate\": %.3f, \"cpu\": %.6f}\n", sum.sessions,
           sum.resumed, rate, cpu(RUSAGE_CHILDREN));
    return 0;
}
