-- Results: how each item ended. Insert-only; a retry of failed items takes their rows away and lets new
-- ones be inserted. Items that were cancelled or expired while they waited have no row here: their chunk says so.

create type outcome as enum ('succeeded', 'failed');

create table results (
    job_id uuid not null,
    seq integer not null,
    outcome outcome not null,
    -- The answer, as checked (`json` keeps key order). Exactly for succeeded items.
    output json,
    -- Stable word and cause. Exactly for failed items.
    error_code text,
    error text,
    -- Tries this item took, this one included.
    attempts smallint not null check (attempts >= 1),
    prompt_tokens integer not null check (prompt_tokens >= 0),
    prefix_hit_tokens integer not null check (prefix_hit_tokens between 0 and prompt_tokens),
    output_tokens integer not null check (output_tokens >= 0),
    forced_tokens integer not null check (forced_tokens between 0 and output_tokens),
    -- From hand-over to the engine to the last token.
    latency_ms integer not null check (latency_ms >= 0),
    finished_at timestamptz not null default now(),
    -- results: pages by seq. Also what makes a second result of one item impossible.
    primary key (job_id, seq),
    constraint succeeded_has_output check ((outcome = 'succeeded') = (output is not null)),
    constraint failed_says_why
        check ((outcome = 'failed') = (error_code is not null and error is not null))
);

-- results with a filter, errors by code, retry: the failed ones of a job, usually few among many.
create index results_failed on results (job_id, seq) include (error_code) where outcome = 'failed';

-- As for items: one check a statement that every result is an item's.
create function results_need_their_item() returns trigger language plpgsql as $$
begin
    if exists (
        select from fresh f
        where not exists (select from items i where i.job_id = f.job_id and i.seq = f.seq)
    ) then
        raise foreign_key_violation using message = 'results of an item that does not exist', table = 'results';
    end if;
    return null;
end $$;

create trigger results_need_their_item after insert on results
    referencing new table as fresh for each statement execute function results_need_their_item();

create trigger results_insert_only before update on results
    for each statement execute function rows_are_insert_only();

-- A job takes its rows with it, so that none is ever left without a job.
create function job_takes_its_rows() returns trigger language plpgsql as $$
begin
    delete from results where job_id = old.id;
    delete from items where job_id = old.id;
    return null;
end $$;

create trigger job_takes_its_rows after delete on jobs
    for each row execute function job_takes_its_rows();
