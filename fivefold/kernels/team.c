/* Threads that live as long as a call: nothing is left behind that a fork could break, and any number of calls run side by side.
 *
 * To start a thread takes some 20 us where a pack takes milliseconds.
 */
#include "kernels.h"

#include <pthread.h>
#include <stdatomic.h>

#define SPINS 2000 /* looks at the others' progress before a member sleeps: a few microseconds */

#define MOST_MEMBERS 256

struct team {
    int members;
    atomic_int arrived;
    atomic_uint meetings;
    atomic_llong next; /* unit that nobody has yet */
    pthread_mutex_t lock;
    pthread_cond_t met;
    void (*work)(void *job, struct team *team, int member);
    void *job;
};

struct seat {
    struct team *team;
    int member;
};

static inline void rest(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Wait for all members. The last to come sets the units back. */
static void meet(struct team *team) {
    const unsigned before = atomic_load(&team->meetings);
    if (atomic_fetch_add(&team->arrived, 1) + 1 == team->members) {
        atomic_store(&team->arrived, 0);
        atomic_store(&team->next, 0);
        pthread_mutex_lock(&team->lock);
        atomic_fetch_add(&team->meetings, 1);
        pthread_cond_broadcast(&team->met);
        pthread_mutex_unlock(&team->lock);
        return;
    }
    for (int i = 0; i < SPINS; i++, rest())
        if (atomic_load(&team->meetings) != before)
            return;
    pthread_mutex_lock(&team->lock);
    while (atomic_load(&team->meetings) == before)
        pthread_cond_wait(&team->met, &team->lock);
    pthread_mutex_unlock(&team->lock);
}

void team_share(struct team *team, int member, int64_t units, task_unit *unit, void *job) {
    if (team->members == 1) {
        for (int64_t i = 0; i < units; i++)
            unit(job, i, member);
        return;
    }
    for (int64_t i; (i = atomic_fetch_add(&team->next, 1)) < units;)
        unit(job, i, member);
    meet(team);
}

int team_members(const struct team *team) { return team->members; }

static void *sit(void *argument) {
    const struct seat *seat = argument;
    pthread_mutex_lock(&seat->team->lock); /* until it is known how many there are */
    pthread_mutex_unlock(&seat->team->lock);
    seat->team->work(seat->team->job, seat->team, seat->member);
    return NULL;
}

void team_run(int members, void (*work)(void *job, struct team *team, int member), void *job) {
    struct team team = {.members = 1, .work = work, .job = job};
    struct seat seats[MOST_MEMBERS];
    pthread_t threads[MOST_MEMBERS];
    pthread_mutex_init(&team.lock, NULL);
    pthread_cond_init(&team.met, NULL);
    pthread_mutex_lock(&team.lock);
    for (; team.members < members && team.members < MOST_MEMBERS; team.members++) {
        seats[team.members] = (struct seat){&team, team.members};
        if (pthread_create(threads + team.members, NULL, sit, seats + team.members))
            break; /* the system has no more: the others do the work */
    }
    pthread_mutex_unlock(&team.lock);
    work(job, &team, 0);
    for (int i = 1; i < team.members; i++)
        pthread_join(threads[i], NULL);
    pthread_cond_destroy(&team.met);
    pthread_mutex_destroy(&team.lock);
}
