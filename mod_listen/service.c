/**
 * @file service.c  The module's own thread
 *
 * It waits for workers that come and go, for kicks of those that have written
 * playback, and for the rest of the module; and it looks after what needs a
 * clock: slots to be reclaimed, listens without a worker, writers.
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "adoption.h"
#include "handoff.h"
#include "registry.h"
#include "service.h"
#include "workers.h"
#include "writer.h"

#define FRAME_MS 20 /* while audio waits to be played */
#define TICK_MS 100 /* while something else waits */

static struct {
	switch_thread_t *thread;
	int wake;
	atomic_bool stop;
	/* a request to bind the socket anew, and its answer */
	pthread_mutex_t lock;
	pthread_cond_t answered;
	const struct settings *rebind;
	int answer;
} service = {
	.wake = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .answered = PTHREAD_COND_INITIALIZER};

static void drain(int fd)
{
	eventfd_t value;

	(void)eventfd_read(fd, &value);
}

static void serve_rebind(void)
{
	pthread_mutex_lock(&service.lock);
	if (service.rebind) {
		service.answer = handoff_rebind(service.rebind);
		service.rebind = NULL;
		pthread_cond_broadcast(&service.answered);
	}
	pthread_mutex_unlock(&service.lock);
}

/* Does what is due; returns how long that may wait to be done again, ms. */
static int tend(void)
{
	bool ticking, playing;

	serve_rebind();
	ticking = slots_reclaim();
	registry_release_module();
	ticking |= adoption_expire();
	ticking |= handoff_expire();
	writer_reap();
	playing = writer_serve();
	return playing ? FRAME_MS : ticking ? TICK_MS : -1;
}

static void *SWITCH_THREAD_FUNC run(switch_thread_t *thread, void *arg)
{
	struct pollfd fds[2 + HANDOFF_FDS];

	(void)thread;
	(void)arg;
	while (!atomic_load(&service.stop)) {
		int timeout_ms = tend();
		nfds_t n = 2 + handoff_poll(fds + 2);

		fds[0] = (struct pollfd){.fd = service.wake, .events = POLLIN};
		fds[1] = (struct pollfd){.fd = workers_kick_fd(), .events = POLLIN};
		if (poll(fds, n, timeout_ms) < 0)
			continue;
		if (fds[0].revents)
			drain(service.wake);
		if (fds[1].revents)
			drain(workers_kick_fd());
		handoff_serve(fds + 2, n - 2);
	}
	return NULL;
}

/**
 * Binds the handoff socket and starts the thread.
 *
 * @param s     Settings
 * @param pool  Pool of the module
 *
 * @return 0, or a negative errno value
 */
int service_start(const struct settings *s, switch_memory_pool_t *pool)
{
	switch_threadattr_t *attr = NULL;
	int err = 0;

	atomic_store(&service.stop, false);
	service.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (service.wake < 0)
		return -errno;
	err = handoff_open(s);
	if (err)
		goto out;
	switch_threadattr_create(&attr, pool);
	switch_threadattr_stacksize_set(attr, SWITCH_THREAD_STACKSIZE);
	if (switch_thread_create(&service.thread, attr, run, NULL, pool) != SWITCH_STATUS_SUCCESS) {
		handoff_close();
		err = -EAGAIN;
	}

out:
	if (err) {
		close(service.wake);
		service.wake = -1;
	}
	return err;
}

/**
 * Ends the thread and closes the handoff socket and those of the workers.
 */
void service_stop(void)
{
	switch_status_t status;

	atomic_store(&service.stop, true);
	service_wake();
	switch_thread_join(&status, service.thread);
	handoff_close();
	close(service.wake);
	service.wake = -1;
}

/**
 * Has the thread look for what is to be done. Never blocks.
 */
void service_wake(void)
{
	if (service.wake >= 0)
		(void)eventfd_write(service.wake, 1);
}

/**
 * Binds the handoff socket anew, if its settings have changed.
 *
 * @param s  Settings
 *
 * @return 1 if it was bound anew, 0 if nothing had changed, or a negative errno
 *         value: -EBUSY while workers are attached
 */
int service_rebind(const struct settings *s)
{
	int answer;

	pthread_mutex_lock(&service.lock);
	while (service.rebind)
		pthread_cond_wait(&service.answered, &service.lock);
	service.rebind = s;
	service_wake();
	while (service.rebind == s)
		pthread_cond_wait(&service.answered, &service.lock);
	answer = service.answer;
	pthread_mutex_unlock(&service.lock);
	return answer;
}
