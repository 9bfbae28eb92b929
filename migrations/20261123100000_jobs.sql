-- Jobs: one row per submission, immutable in what it asks, mutable in where it stands.

create type task as enum ('concept', 'relationship', 'attribute', 'data_model', 'custom', 'chat');
create type stage as enum ('concept', 'relationship', 'attribute', 'custom', 'chat');
create type job_state as enum ('queued', 'running', 'completed', 'cancelled', 'failed');

create table jobs (
    -- UUID v7: ids order by creation. Everyone.
    id uuid primary key,
    -- Whose idempotency keys and lists these are. submit, list.
    tenant text not null check (length(tenant) between 1 and 200),
    task task not null,
    -- JobSpec. `json`, not `jsonb`: the key order of the client's schema is the key order of its answers.
    spec json not null,
    -- Catalog of a schema job. The worker reads it for prompts, the API for exports.
    catalog json,
    -- 0 bulk, 1 normal, 2 interactive. advance copies it to the chunks of later stages.
    class smallint not null check (class between 0 and 2),
    state job_state not null default 'queued',
    -- The stage whose items are at work. finish and rescue compare it before they hand a stage over.
    stage stage not null,
    -- Items of all stages so far; equals the sum over the job's chunks at every commit. Job view.
    total integer not null default 0 check (total >= 0),
    -- submit: the same key answers the same job.
    idempotency_key text check (length(idempotency_key) between 1 and 255),
    -- submit: the same key with another body is refused.
    request_hash bytea,
    created_at timestamptz not null default now(),
    -- First claim. Job view.
    started_at timestamptz,
    finished_at timestamptz,
    -- rescue ends what still waits then.
    expires_at timestamptz,
    -- When the end of the current stage was last handed to a worker that makes the next one. rescue hands
    -- it out again when that worker has been silent for too long.
    handed_over_at timestamptz,
    -- Why the job as a whole failed.
    error_code text,
    error text,
    constraint finished_exactly_when_final
        check ((state in ('completed', 'cancelled', 'failed')) = (finished_at is not null)),
    constraint failed_says_why
        check ((state = 'failed') = (error_code is not null and error is not null)),
    constraint running_has_started check (state <> 'running' or started_at is not null),
    constraint hash_belongs_to_key check (idempotency_key is not null or request_hash is null)
);

-- submit: finds, and waits for, another submission under the same key.
create unique index jobs_idempotency on jobs (tenant, idempotency_key) where idempotency_key is not null;

-- list: pages of a tenant's jobs, newest first.
create index jobs_by_tenant on jobs (tenant, id);

-- rescue: jobs past their time, and stages that ended without a successor.
create index jobs_open on jobs (id) where state in ('queued', 'running');
