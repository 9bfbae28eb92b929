-- Jobs made from an earlier one: what they are compared by, what they take over, and what they are compared with.

alter table jobs
    -- Basis: who answers and how the question is put. Null: the job reads no catalog, or an older adit made it.
    -- A submission that names this job compares its own with it.
    add column basis json,
    -- The earlier job, which may be gone since. Job view, lists.
    add column since uuid;

-- Items of the chunk ended in the earlier job; they took nothing in this one, and nobody claims them. Job view;
-- experience leaves them out.
alter table chunks
    add column carried boolean not null default false,
    add constraint carried_has_succeeded check (not carried or (state = 'done' and n_succeeded = n_items));

-- An earlier job's answer: its tokens and times are what it took then. results.
alter table results add column carried boolean not null default false;

-- What a job was made from. One row per job with `since`; it holds when the earlier job is gone. difference.
create table reruns (
    job_id uuid primary key references jobs (id) on delete cascade,
    -- TableChanges.
    tables json not null,
    -- DataModel of the earlier job as it was at the submission.
    model json not null
);

-- Answers that wait for their stage: it takes those that still hold and lets the others go. advance.
create table carried (
    job_id uuid not null references jobs (id) on delete cascade,
    -- In the earlier job.
    seq integer not null,
    stage stage not null,
    -- The item and its answer, about this job's catalog.
    input json not null,
    output json not null,
    -- The earlier row of results, whatever columns it has, less its output.
    result jsonb not null,
    primary key (job_id, seq)
);

-- A row of results as another job's. Columns that results gain are carried over without being named here; the
-- answer goes beside the row, because `json` may hold what `jsonb` refuses (\u0000).
create function carried_result(r results, job uuid, place integer, answer json) returns results
    language plpgsql immutable
as $$
begin
    r.job_id := job;
    r.seq := place;
    r.output := answer;
    r.carried := true;
    return r;
end $$;
