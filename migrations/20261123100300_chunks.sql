-- Chunks: up to some hundred items of one stage of one job. The unit that is claimed, counted, retried and
-- cancelled, and the only table whose rows change while a job runs. Every item belongs to exactly one chunk
-- at every commit; the sums over a job's chunks are its counts.
--
--   ready ----claim----> running ----finish----> done
--     ^                   | |  \---cancel------> cancelled
--     |  release, rescue  | |
--     +-------------------+ +---finish--> done, and its failed items in a new chunk, delayed
--   delayed --promote--> ready;   ready, delayed --cancel--> cancelled, --expire--> expired

create type chunk_state as enum ('ready', 'delayed', 'running', 'done', 'cancelled', 'expired');

create table chunks (
    id bigint generated always as identity primary key,
    job_id uuid not null references jobs (id) on delete cascade,
    stage stage not null,
    -- Who serves it. claim, waiting_by_model.
    model text not null,
    -- The items: all of [lo, hi) while seqs is null, else those listed, which lie within.
    lo integer not null check (lo >= 0),
    hi integer not null,
    seqs integer[],
    n_items integer not null,
    n_succeeded integer not null default 0 check (n_succeeded >= 0),
    n_failed integer not null default 0 check (n_failed >= 0),
    n_cancelled integer not null default 0 check (n_cancelled >= 0),
    n_expired integer not null default 0 check (n_expired >= 0),
    state chunk_state not null default 'ready',
    -- Order of claims: higher class first, then lower virtual time (start-time fair queueing: a job starts
    -- where the queue stands and advances by its items, so a short job does not wait behind a long one).
    class smallint not null check (class between 0 and 2),
    vtime bigint not null,
    -- Claims so far; with worker and id the fence of a claim. Never goes back.
    attempt integer not null default 0 check (attempt >= 0),
    -- Tries that failed in a way that may pass; counts towards queue.max_attempts.
    tries smallint not null default 0 check (tries >= 0),
    -- Workers that died while they held it; counts towards queue.max_worker_deaths.
    deaths smallint not null default 0 check (deaths >= 0),
    -- promote: not before.
    run_at timestamptz,
    worker uuid,
    lease_until timestamptz,
    -- Sums over the results written under this chunk. Job view.
    prompt_tokens bigint not null default 0 check (prompt_tokens >= 0),
    prefix_hit_tokens bigint not null default 0 check (prefix_hit_tokens >= 0),
    output_tokens bigint not null default 0 check (output_tokens >= 0),
    forced_tokens bigint not null default 0 check (forced_tokens >= 0),
    constraint range_is_ordered check (lo < hi),
    constraint items_are_counted
        check (n_items = case when seqs is null then hi - lo else cardinality(seqs) end),
    -- A chunk all of whose items moved on remains for its token sums; it is empty and running only inside the
    -- transaction that ends it.
    constraint waiting_has_items check (n_items > 0 or state not in ('ready', 'delayed')),
    constraint counts_fit check (n_succeeded + n_failed + n_cancelled + n_expired <= n_items),
    constraint ended_adds_up
        check (state in ('ready', 'delayed', 'running')
               or n_succeeded + n_failed + n_cancelled + n_expired = n_items),
    constraint only_cancelled_counts_cancelled check (n_cancelled = 0 or state = 'cancelled'),
    constraint only_expired_counts_expired check (n_expired = 0 or state = 'expired'),
    constraint running_is_leased
        check ((state = 'running') = (worker is not null) and (state = 'running') = (lease_until is not null)),
    constraint delayed_has_time check ((state = 'delayed') = (run_at is not null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);

-- claim: the next chunks of a model, fairest first. submit and advance: where the queue stands.
create index chunks_ready on chunks (model, class desc, vtime, id) where state = 'ready';

-- promote: what is due.
create index chunks_delayed on chunks (run_at) where state = 'delayed';

-- renew, rescue, claim of suspects: what is held. Without lease_until, so that a renewal stays a HOT update.
create index chunks_running on chunks (worker, id) where state = 'running';

-- Job view, cancel, finish: the chunks of a job. Without the counters, for the same reason.
create index chunks_by_job on chunks (job_id, id);

-- finish, rescue: does a job still have an open chunk?
create index chunks_open on chunks (job_id) where state in ('ready', 'delayed', 'running');

-- The items of a chunk, for queries that need them one by one.
create function chunk_seqs(lo integer, hi integer, seqs integer[]) returns setof integer
    language sql immutable parallel safe
as $$
    select g from generate_series(lo, hi - 1) g where seqs is null
    union all
    select s from unnest(seqs) s
$$;
