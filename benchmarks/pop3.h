/*
 * The POP3 client of load.c: connections, commands, and the check of every answer.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/ssl.h>
static SSL_CTX *context;
static SSL_SESSION *ticket;
#endif

#define MAX_PROCESSES 64
#define MAX_BUFFER (256L << 20)

static struct { const char *key; double number; char text[512]; } options[] = {
    {"port", 0, ""},        /* on 127.0.0.1 */
    {"work", 0, "login"},   /* login, poll, retr, pipe; hold: log in, keep until stdin ends; stall:
                               the same, and leave a reply unread */
    {"tls", 0, ""},         /* 0 cleartext, 1 a full handshake each time, 2 with resumption */
    {"user", 0, "user"},    /* users are called this and a number from 0 */
    {"users", 1, ""},       /* how many of them; process p has those with n % processes == p */
    {"password", 0, "secret"},
    {"processes", 1, ""},
    {"seconds", 1, ""},     /* begin no session after this, but one at least */
    {"limit", 1e9, ""},     /* so many sessions a process at most; of hold and stall: in all */
    {"messages", 0, ""},    /* in each maildrop */
    {"octets", 0, ""},      /* of each message, as LIST says */
    {"wire", 0, ""},        /* the same with stuffed dots, as RETR sends */
    {"window", 32, ""},     /* of pipe: commands under way at most, topped up from half of it */
    {"deliver", 0, ""},     /* a folder of Maildirs: one message more in new/ before each session */
    {"template", 0, ""},    /* the file that is delivered (as a hard link) */
    {"pause", 0, ""},       /* seconds between delivery and session */
    {"every", 0, ""},       /* seconds from one session's begin to the next one's, if not at once */
    {"times", 0, ""},       /* a file for when each session was due, and the seconds it took since */
    {"ask", 0, ""},         /* of stall: the command whose reply is not read to its end */
    {"stop", 0, ""},        /* of stall: after so many octets of it */
    {"patience", 120, ""},  /* seconds that the server may take over anything */
};

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static int option(const char *key)
{
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (!strcmp(options[i].key, key))
            return (int)i;
    die("load: no option %s", key);
    return 0;
}
#define NUMBER(key) (options[option(key)].number)
#define TEXT(key) (options[option(key)].text)

struct connection {
    int fd;
    char *buffer;
    size_t start, end, size;
#ifdef TLS
    SSL *ssl;
#endif
};

static long resumed;

/* Read more; return 0 at the end. */
static size_t fill(struct connection *c)
{
    if (c->start && c->start == c->end)
        c->start = c->end = 0;
    if (c->end == c->size) {
        if (c->start > c->size / 2) {
            memmove(c->buffer, c->buffer + c->start, c->end - c->start);
            c->end -= c->start;
            c->start = 0;
        } else {
            c->size = c->size ? c->size * 2 : 4096;
            if (c->size > MAX_BUFFER || !(c->buffer = realloc(c->buffer, c->size)))
                die("a reply too long");
        }
    }
    ssize_t n;
#ifdef TLS
    if (c->ssl) {
        n = SSL_read(c->ssl, c->buffer + c->end, (int)(c->size - c->end));
        if (n < 0 && SSL_get_error(c->ssl, (int)n) == SSL_ERROR_ZERO_RETURN)
            n = 0;
    } else
#endif
        n = recv(c->fd, c->buffer + c->end, c->size - c->end, 0);
    if (n < 0)
        die("reading: %s", strerror(errno));
    c->end += (size_t)n;
    return (size_t)n;
}

static void say(struct connection *c, const char *text, size_t length)
{
    ssize_t n;
#ifdef TLS
    if (c->ssl)
        n = SSL_write(c->ssl, text, (int)length);
    else
#endif
        n = send(c->fd, text, length, MSG_NOSIGNAL);
    if (n != (ssize_t)length)
        die("writing: %s", strerror(errno));
}

/* Take one status line, which has to be +OK; return what follows, valid until the next call. */
static char *ok(struct connection *c, const char *what)
{
    size_t seen = 0;
    char *newline;
    while (!(newline = memchr(c->buffer + c->start + seen, '\n', c->end - c->start - seen))) {
        seen = c->end - c->start;
        if (!fill(c))
            die("%s: the server closed the connection", what);
    }
    char *line = c->buffer + c->start;
    *newline = 0;
    c->start = (size_t)(newline + 1 - c->buffer);
    if (strncmp(line, "+OK", 3))
        die("%s: %s", what, line);
    return line + 3;
}

/* Take the rest of a multi-line reply; return where it begins, and its octets without the end. */
static char *many(struct connection *c, const char *what, size_t *octets)
{
    size_t seen = 0;
    for (;;) {
        char *data = c->buffer + c->start;
        size_t length = c->end - c->start;
        if (length >= 3 && !memcmp(data, ".\r\n", 3)) {
            *octets = 0;
            c->start += 3;
            return data;
        }
        char *end = memmem(data + seen, length - seen, "\r\n.\r\n", 5);
        if (end) {
            *octets = (size_t)(end - data) + 2;
            c->start += *octets + 3;
            return data;
        }
        seen = length > 4 ? length - 4 : 0;
        if (!fill(c))
            die("%s: the server closed the connection", what);
    }
}

static void command(struct connection *c, const char *format, ...)
{
    char line[600];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    say(c, line, (size_t)n);
}

/* Check LIST or UIDL: numbered lines, one for each message; LIST's sizes too. */
static void check_listing(struct connection *c, const char *what, long messages, long each)
{
    size_t length;
    command(c, "%s\r\n", what);
    ok(c, what);
    char *at = many(c, what, &length), *end = at + length;
    long number = 0;
    while (at < end) {
        char *rest, *newline = memchr(at, '\n', (size_t)(end - at));
        if (strtol(at, &rest, 10) != ++number || *rest != ' ')
            die("%s: line %ld is wrong", what, number);
        if (each && strtol(rest, &rest, 10) != each)
            die("%s: message %ld has not %ld octets", what, number, each);
        at = newline + 1;
    }
    if (number != messages)
        die("%s: %ld lines, not %ld", what, number, messages);
}

static void check_message(struct connection *c, long wire)
{
    size_t length;
    ok(c, "RETR");
    many(c, "RETR", &length);
    if ((long)length != wire)
        die("RETR: %zu octets, not %ld", length, wire);
}

static void retrieve(struct connection *c, long messages, long wire, long window)
{
    char batch[MAX_PROCESSES * 64];
    long sent = 0, got = 0;
    if (window > MAX_PROCESSES)
        window = MAX_PROCESSES;
    while (got < messages) {
        if (sent < messages && sent - got <= window / 2) {
            size_t length = 0;
            for (; sent < messages && sent - got < window; sent++)
                length += (size_t)sprintf(batch + length, "RETR %ld\r\n", sent + 1);
            say(c, batch, length);
        }
        check_message(c, wire);
        got++;
    }
}

static void open_connection(struct connection *c, int process)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    struct timeval patience = {.tv_sec = (time_t)NUMBER("patience")};
    int one = 1, small = 1 << 16;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (unsigned)process); /* ports for everyone */
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((unsigned short)NUMBER("port"));
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (*TEXT("ask")) /* or the kernel takes megabytes in */
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    if (c->fd < 0 || bind(c->fd, (void *)&from, sizeof from)
        || connect(c->fd, (void *)&to, sizeof to))
        die("connecting: %s", strerror(errno));
    c->start = c->end = 0;
#ifdef TLS
    c->ssl = NULL;
    if (NUMBER("tls") > 0) {
        c->ssl = SSL_new(context);
        SSL_set_fd(c->ssl, c->fd);
        if (ticket && NUMBER("tls") > 1)
            SSL_set_session(c->ssl, ticket);
        if (SSL_connect(c->ssl) != 1)
            die("the TLS handshake failed");
        resumed += SSL_session_reused(c->ssl);
    }
#endif
}

static void close_connection(struct connection *c)
{
    command(c, "QUIT\r\n");
    ok(c, "QUIT");
    while (fill(c))
        ;
#ifdef TLS
    if (c->ssl) {
        SSL_shutdown(c->ssl);
        SSL_free(c->ssl);
    }
#endif
    close(c->fd);
}

static void log_in(struct connection *c, long user)
{
    ok(c, "greeting");
    command(c, "USER %s%ld\r\n", TEXT("user"), user);
    ok(c, "USER");
    command(c, "PASS %s\r\n", TEXT("password"));
    ok(c, "PASS");
}

#ifdef TLS
static int keep_ticket(SSL *ssl, SSL_SESSION *given)
{
    (void)ssl;
    SSL_SESSION_free(ticket);
    ticket = given;
    return 1;
}
#endif

static void prepare_tls(void)
{
    if (NUMBER("tls") <= 0)
        return;
#ifdef TLS
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_mode(context, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    if (NUMBER("tls") > 1) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT);
        SSL_CTX_sess_set_new_cb(context, keep_ticket);
    }
#else
    die("load: built without TLS");
#endif
}
