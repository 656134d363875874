/* here: see here.h. A connection belongs to both its ends and goes with the later of them; what was
 * sent waits in it, so a message outlives its sender. */
#include "proto/here.h"

#include <stdlib.h>

struct letter {
    struct letter *next;
    struct frames frames;
};

/* Messages one way, in order. */
struct way {
    struct letter *head, **tail;
    int n;
};

enum side { SERVE, CALL };

struct line {
    struct line *next; /* of the serving end */
    struct here *end[2];
    struct way to[2];
    struct letter *spare; /* what has been read: as many as ever waited at once */
    uint32_t id;
};

struct here {
    struct ev_loop *loop;
    enum side side;
    int hwm;
    here_turn_fn *on_turn;
    void *user;
    struct line *line; /* a serving end's first, a calling end's own */
    uint32_t n_line;   /* ever made: ids do not come again */
    ev_prepare prepare;
    ev_check check;
    ev_idle idle;
};

/* ---- the loop ---- */

static int any_letter(const struct here *end)
{
    const struct line *l = end->line;
    if (end->side == CALL)
        return l && l->to[CALL].n > 0;
    while (l && l->to[SERVE].n == 0)
        l = l->next;
    return l != NULL;
}

static void on_idle(struct ev_loop *loop, ev_idle *w, int revents)
{
    (void)loop;
    (void)w;
    (void)revents;
}

/* While something is there the loop does not sleep. */
static void on_prepare(struct ev_loop *loop, ev_prepare *w, int revents)
{
    struct here *end = w->data;
    (void)revents;
    if (any_letter(end))
        ev_idle_start(loop, &end->idle);
}

static void on_check(struct ev_loop *loop, ev_check *w, int revents)
{
    struct here *end = w->data;
    (void)revents;
    ev_idle_stop(loop, &end->idle);
    end->on_turn(end->user);
}

struct here *here_create(struct ev_loop *loop, int hwm, here_turn_fn *on_turn, void *user)
{
    struct here *end = calloc(1, sizeof(*end));
    if (!end)
        return NULL;
    *end = (struct here){.loop = loop, .hwm = hwm, .on_turn = on_turn, .user = user};
    ev_prepare_init(&end->prepare, on_prepare);
    ev_check_init(&end->check, on_check);
    ev_idle_init(&end->idle, on_idle);
    /* What has arrived is received before other check watchers act on it. */
    ev_set_priority(&end->check, EV_MAXPRI);
    end->prepare.data = end->check.data = end;
    ev_prepare_start(loop, &end->prepare);
    ev_check_start(loop, &end->check);
    return end;
}

/* ---- connections ---- */

static void way_clear(struct way *way)
{
    while (way->head) {
        struct letter *letter = way->head;
        way->head = letter->next;
        frames_close(&letter->frames);
        free(letter);
    }
    way->tail = &way->head;
    way->n = 0;
}

/* line_leave: `side` reads no more; the line goes with its second end. */
static void line_leave(struct line *line, enum side side)
{
    way_clear(&line->to[side]);
    line->end[side] = NULL;
    if (!line->end[SERVE] && !line->end[CALL]) {
        way_clear(&line->to[!side]);
        for (struct letter *l = line->spare, *next; l; l = next) {
            next = l->next;
            free(l);
        }
        free(line);
    }
}

int here_connect(struct here *call, struct here *serve)
{
    struct line *line = calloc(1, sizeof(*line));
    if (!line)
        return ERR_NOMEM;
    line->end[SERVE] = serve;
    line->end[CALL] = call;
    line->to[SERVE].tail = &line->to[SERVE].head;
    line->to[CALL].tail = &line->to[CALL].head;
    line->id = ++serve->n_line;
    struct line **at = &serve->line;
    while (*at)
        at = &(*at)->next;
    *at = line;
    call->side = CALL;
    call->line = line;
    return 0;
}

/* forget takes a line out of the serving end's list. */
static void forget(struct here *serve, const struct line *line)
{
    struct line **at = &serve->line;
    while (*at != line)
        at = &(*at)->next;
    *at = line->next;
}

void here_close(struct here *end)
{
    if (!end)
        return;
    ev_prepare_stop(end->loop, &end->prepare);
    ev_check_stop(end->loop, &end->check);
    ev_idle_stop(end->loop, &end->idle);
    for (struct line *line = end->line, *next; line; line = next) {
        next = end->side == SERVE ? line->next : NULL;
        line_leave(line, end->side);
    }
    free(end);
}

/* ---- messages ---- */

static struct line *line_of(const struct here *serve, uint32_t id)
{
    struct line *line = serve->line;
    while (line && line->id != id)
        line = line->next;
    return line && line->end[CALL] ? line : NULL;
}

static struct letter *letter_of(struct line *line)
{
    struct letter *letter = line->spare;
    if (!letter)
        return malloc(sizeof(*letter));
    line->spare = letter->next;
    return letter;
}

int here_send(struct here *end, uint32_t id, struct frames *f)
{
    struct line *line = end->side == SERVE ? line_of(end, id) : end->line;
    enum side to = end->side == SERVE ? CALL : SERVE;
    if (!line) {
        frames_close(f);
        return ERR_GONE;
    }
    struct letter *letter = line->end[to] && line->to[to].n < end->hwm ? letter_of(line) : NULL;
    if (!letter)
        return ERR_AGAIN;
    letter->next = NULL;
    frames_init(&letter->frames);
    frames_move(&letter->frames, f);
    *line->to[to].tail = letter;
    line->to[to].tail = &letter->next;
    line->to[to].n++;
    return 0;
}

static void take(struct line *line, struct way *way, struct frames *f)
{
    struct letter *letter = way->head;
    way->head = letter->next;
    if (!way->head)
        way->tail = &way->head;
    way->n--;
    frames_move(f, &letter->frames);
    letter->next = line->spare;
    line->spare = letter;
}

int here_recv(struct here *end, uint32_t *id, struct frames *f)
{
    struct line *line = end->line;
    while (line && line->to[end->side].n == 0) {
        struct line *empty = line;
        line = end->side == SERVE ? line->next : NULL;
        if (end->side == SERVE && !empty->end[CALL]) { /* its caller is gone, all of it is read */
            forget(end, empty);
            line_leave(empty, SERVE);
        }
    }
    if (!line)
        return 0;
    *id = line->id;
    take(line, &line->to[end->side], f);
    return 1;
}
