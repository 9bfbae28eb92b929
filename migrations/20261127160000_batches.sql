-- OpenAI's files and batches. A batch is a job over the lines of a file; what is here is what a job does not
-- know. Its state follows from these columns and its job's, and is not stored.

create table batches (
    -- UUID v7: ids order by creation. Its job, once there is one, has the same. Everyone.
    id uuid primary key,
    -- Whose lists it stands in. list.
    tenant text not null check (length(tenant) between 1 and 200),
    -- The job that the lines became; absent while they are checked. A job that is deleted takes its batch along.
    job_id uuid unique references jobs (id) on delete cascade,
    endpoint text not null,
    -- No foreign key: once the lines are a job, the file may go. validation reads it.
    input_file_id uuid not null,
    -- As the client wrote it.
    completion_window text not null,
    metadata json,
    -- create: the same key answers the same batch, with another request it is refused.
    idempotency_key text check (length(idempotency_key) between 1 and 255),
    request_hash bytea,
    -- Life of output and error file, from the end of the batch. close.
    output_ttl_s integer check (output_ttl_s between 3600 and 2592000),
    created_at timestamptz not null default now(),
    -- The job has the same; here it is known before there is one.
    expires_at timestamptz not null,
    in_progress_at timestamptz,
    -- A client wants an end of a batch that is no job yet. validation looks before it commits; a job is
    -- cancelled by itself.
    cancel_asked_at timestamptz,
    -- Why none of the lines can be run: BatchError[].
    errors json,
    -- Nothing more is to be done: files are measured, or it never became a job. A retry of failed items takes
    -- it away again. worker's look for what is to be done.
    ended_at timestamptz,
    constraint job_is_the_same check (job_id = id),
    constraint job_began check ((job_id is null) = (in_progress_at is null)),
    constraint refused_is_the_end check (errors is null or (job_id is null and ended_at is not null)),
    constraint hash_belongs_to_key check ((idempotency_key is null) = (request_hash is null)),
    constraint asked_before_it_began check (cancel_asked_at is null or job_id is null)
);

-- create: finds another request under the same key.
create unique index batches_idempotency on batches (tenant, idempotency_key) where idempotency_key is not null;

-- list: pages of a tenant's batches, newest first.
create index batches_by_tenant on batches (tenant, id);

-- worker: batches to check, to end, to measure.
create index batches_open on batches (id) where ended_at is null;

create type file_role as enum ('input', 'output', 'errors');

create table files (
    -- UUID v7. Everyone.
    id uuid primary key,
    tenant text not null check (length(tenant) between 1 and 200),
    -- Requests that were uploaded, or what a batch answered and could not answer. Content.
    role file_role not null,
    filename text not null check (length(filename) between 1 and 512),
    -- Of a batch's file: known at its end.
    bytes bigint not null default 0 check (bytes >= 0),
    -- The batch whose results are the content; uploaded files have parts instead.
    batch_id uuid references batches (id) on delete cascade,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    constraint uploads_have_no_batch check ((role = 'input') = (batch_id is null))
);

-- batch view, close: the two files of a batch.
create unique index files_by_batch on files (batch_id, role) where batch_id is not null;

-- list: pages of a tenant's files.
create index files_by_tenant on files (tenant, id);

-- worker: files past their time.
create index files_expiring on files (expires_at) where expires_at is not null;

-- What was uploaded, cut into pieces that fit into memory. Insert-only; they leave with their file.
create table file_parts (
    file_id uuid not null references files (id) on delete cascade,
    -- From 0. content and validation read one after the other.
    part integer not null check (part >= 0),
    data bytea not null,
    primary key (file_id, part)
);

-- Written once and read once or twice: compressing would cost more than it saves.
alter table file_parts alter column data set storage external;
