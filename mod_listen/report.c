/**
 * @file report.c  What runs, for operators and workers
 */
#include "command.h"
#include "lookup.h"
#include "registry.h"
#include "report.h"
#include "taps.h"
#include "version.h"
#include "writer.h"

static void add_pair(cJSON *obj, const char *key, const uint64_t *v)
{
	cJSON *pair = cJSON_AddObjectToObject(obj, key);

	cJSON_AddNumberToObject(pair, "near", (double)v[LSN_NEAR]);
	cJSON_AddNumberToObject(pair, "far", (double)v[LSN_FAR]);
}

/* Samples, unless the name says ms. */
static void add_counters(cJSON *obj, const char *key, const struct lsn_counters *c)
{
	cJSON *o = cJSON_AddObjectToObject(obj, key);

	add_pair(o, "captured", c->captured);
	add_pair(o, "dropped", c->dropped);
	add_pair(o, "trimmed", c->trimmed);
	add_pair(o, "late", c->late);
	cJSON_AddNumberToObject(o, "filled", (double)c->filled);
	cJSON_AddNumberToObject(o, "sent", (double)c->sent);
	cJSON_AddNumberToObject(o, "played_ms", (double)(c->played_ticks / (LSN_TICKS_HZ / 1000u)));
	cJSON_AddNumberToObject(o, "flushed_ms", (double)(c->flushed_ticks / (LSN_TICKS_HZ / 1000u)));
	cJSON_AddNumberToObject(o, "digits_dropped", (double)c->digits_dropped);
	cJSON_AddNumberToObject(o, "corrupt", (double)c->corrupt);
}

static const char *state_of(const struct listen *l)
{
	return l->orphan_ns ? "orphan" : l->accepted ? "live" : "starting";
}

static uint64_t age_ms(const struct listen *l)
{
	return (lsn_now_ns() - l->start_ns) / 1000000u;
}

static cJSON *listen_json(struct listen *l)
{
	cJSON *obj = cJSON_CreateObject();
	char worker[WORKER_NAME_MAX + 1];
	struct lsn_counters c = {0};

	lookup_worker_name(l, worker);
	(void)lsn_slot_counters(l->arena, l->slot, &c);
	cJSON_AddStringToObject(obj, "id", l->id);
	cJSON_AddStringToObject(obj, "uuid", l->uuid);
	cJSON_AddStringToObject(obj, "name", l->name);
	cJSON_AddStringToObject(obj, "worker", worker);
	cJSON_AddNumberToObject(obj, "slot", l->slot);
	cJSON_AddNumberToObject(obj, "generation", l->gen);
	cJSON_AddStringToObject(obj, "state", state_of(l));
	cJSON_AddNumberToObject(obj, "sample_rate", l->rate);
	cJSON_AddStringToObject(obj, "mix_type", listen_mix_name(l));
	cJSON_AddNumberToObject(obj, "duration_ms", (double)age_ms(l));
	add_counters(obj, "counters", &c);
	return obj;
}

static void write_listen(switch_stream_handle_t *stream, struct listen *l)
{
	char worker[WORKER_NAME_MAX + 1];

	lookup_worker_name(l, worker);
	stream->write_function(stream, "%s  channel %s  name %s  worker %s  %s  %u Hz %s  %u s\n",
	                       l->id, l->uuid, l->name, *worker ? worker : "-", state_of(l), l->rate,
	                       listen_mix_name(l), (unsigned)(age_ms(l) / 1000u));
}

/**
 * Lists listens.
 *
 * @param stream  Where to
 * @param uuid    Channel, or NULL for all
 * @param json    As JSON
 */
void report_list(switch_stream_handle_t *stream, const char *uuid, bool json)
{
	uint32_t n;
	struct listen **list = lookup_channel(uuid, &n);
	cJSON *obj = cJSON_CreateObject();
	cJSON *array = cJSON_AddArrayToObject(obj, "listens");

	if (!json)
		stream->write_function(stream, "+OK %u listen%s\n", n, n == 1 ? "" : "s");
	for (uint32_t i = 0; i < n; i++) {
		if (json)
			cJSON_AddItemToArray(array, listen_json(list[i]));
		else
			write_listen(stream, list[i]);
	}
	lookup_free(list, n);
	if (json)
		command_write_json(stream, "", obj);
	else
		cJSON_Delete(obj);
}

static cJSON *workers_json(void)
{
	cJSON *obj = cJSON_CreateObject();
	cJSON *array = cJSON_AddArrayToObject(obj, "workers");

	registry_lock();
	for (uint32_t i = 0; i < LSN_WORKERS_MAX; i++) {
		const struct worker *w = workers_at(i);
		cJSON *o;

		if (!w)
			continue;
		o = cJSON_CreateObject();
		cJSON_AddStringToObject(o, "name", w->name);
		cJSON_AddNumberToObject(o, "index", i);
		cJSON_AddNumberToObject(o, "pid", w->pid);
		cJSON_AddNumberToObject(o, "listens", w->listens);
		cJSON_AddStringToObject(o, "state", w->draining ? "draining" : "attached");
		cJSON_AddItemToArray(array, o);
	}
	registry_unlock();
	return obj;
}

/**
 * Lists workers.
 *
 * @param stream  Where to
 * @param json    As JSON
 */
void report_workers(switch_stream_handle_t *stream, bool json)
{
	cJSON *obj = workers_json();
	const cJSON *array = cJSON_GetObjectItemCaseSensitive(obj, "workers");
	int n = cJSON_GetArraySize(array);
	const cJSON *w;

	if (json) {
		command_write_json(stream, "", obj);
		return;
	}
	stream->write_function(stream, "+OK %d worker%s\n", n, n == 1 ? "" : "s");
	cJSON_ArrayForEach(w, array)
		stream->write_function(stream, "%s  %s  pid %d  listens %d\n",
		                       cJSON_GetObjectCstr(w, "name"), cJSON_GetObjectCstr(w, "state"),
		                       cJSON_GetObjectItemCaseSensitive(w, "pid")->valueint,
		                       cJSON_GetObjectItemCaseSensitive(w, "listens")->valueint);
	cJSON_Delete(obj);
}

struct overview {
	struct settings settings;
	struct tallies tallies;
	struct slot_counts slots;
	struct lsn_counters audio;
	uint32_t workers;
};

static void look(struct overview *o)
{
	registry_settings(&o->settings);
	registry_tallies(&o->tallies);
	registry_lock();
	slots_count(&o->slots, &o->audio);
	o->workers = workers_count();
	registry_unlock();
}

static void add_dropped(cJSON *obj, const struct lsn_counters *c)
{
	cJSON *o = cJSON_AddObjectToObject(obj, "dropped");

	cJSON_AddNumberToObject(o, "near_samples", (double)c->dropped[LSN_NEAR]);
	cJSON_AddNumberToObject(o, "far_samples", (double)c->dropped[LSN_FAR]);
	cJSON_AddNumberToObject(o, "digits", (double)c->digits_dropped);
	cJSON_AddNumberToObject(o, "corrupt_records", (double)c->corrupt);
}

static cJSON *status_json(const struct overview *o)
{
	cJSON *obj = cJSON_CreateObject(), *part;
	char abi[24];

	switch_snprintf(abi, sizeof(abi), "%u.%u", LSN_ABI_MAJOR, LSN_ABI_MINOR);
	cJSON_AddStringToObject(obj, "version", MOD_LISTEN_VERSION);
	cJSON_AddStringToObject(obj, "abi", abi);
	cJSON_AddStringToObject(obj, "handoff_socket", o->settings.socket);
	cJSON_AddNumberToObject(obj, "max_listens", lsn_arena_slots(slots_arena()));
	cJSON_AddNumberToObject(obj, "ring_ms", lsn_arena_ring_ms(slots_arena()));
	cJSON_AddNumberToObject(obj, "adopt_timeout_ms", o->settings.adopt_timeout_ms);
	cJSON_AddBoolToObject(obj, "idle_writer", o->settings.idle_writer);
	cJSON_AddNumberToObject(obj, "live", o->slots.live);
	cJSON_AddNumberToObject(obj, "workers", o->workers);
	cJSON_AddNumberToObject(obj, "channels", taps_count());
	cJSON_AddNumberToObject(obj, "idle_writers", writer_count());
	cJSON_AddNumberToObject(obj, "started", (double)o->tallies.started);
	cJSON_AddNumberToObject(obj, "ended", (double)o->tallies.ended);
	cJSON_AddNumberToObject(obj, "refused", (double)o->tallies.refused);
	cJSON_AddNumberToObject(obj, "adopted", (double)o->tallies.adopted);
	part = cJSON_AddObjectToObject(obj, "reasons");
	for (unsigned i = 0; i < REASON_COUNT; i++)
		cJSON_AddNumberToObject(part, reason_name((enum reason)i), (double)o->tallies.reasons[i]);
	add_dropped(obj, &o->audio);
	add_counters(obj, "audio", &o->audio);
	part = cJSON_AddObjectToObject(obj, "slots");
	cJSON_AddNumberToObject(part, "free", o->slots.free);
	cJSON_AddNumberToObject(part, "live", o->slots.live);
	cJSON_AddNumberToObject(part, "ended", o->slots.ended);
	return obj;
}

static void write_status(switch_stream_handle_t *stream, const struct overview *o)
{
	stream->write_function(stream, "+OK mod_listen %s\n", MOD_LISTEN_VERSION);
	stream->write_function(stream, "handoff-socket  %s\n", o->settings.socket);
	stream->write_function(stream, "workers         %u\n", o->workers);
	stream->write_function(stream, "listens         %u live, at most %u, %u channels\n",
	                       o->slots.live, lsn_arena_slots(slots_arena()), taps_count());
	stream->write_function(stream, "since load      %u started, %u ended, %u refused, %u adopted\n",
	                       (unsigned)o->tallies.started, (unsigned)o->tallies.ended,
	                       (unsigned)o->tallies.refused, (unsigned)o->tallies.adopted);
	stream->write_function(stream, "dropped         %u near and %u far samples, %u digits\n",
	                       (unsigned)o->audio.dropped[LSN_NEAR],
	                       (unsigned)o->audio.dropped[LSN_FAR], (unsigned)o->audio.digits_dropped);
}

/**
 * Gives an overview.
 *
 * @param stream  Where to
 * @param json    As JSON
 */
void report_status(switch_stream_handle_t *stream, bool json)
{
	struct overview o;

	look(&o);
	if (json)
		command_write_json(stream, "", status_json(&o));
	else
		write_status(stream, &o);
}
