-- Items: what goes into each prompt. Insert-only; they leave with their job.

create table items (
    job_id uuid not null,
    -- Position in the job, from 0, over all stages.
    seq integer not null check (seq >= 0),
    -- Which prompt is made of it. claim, results.
    stage stage not null,
    -- What `extract` needs to make the prompt, as it came in (`json` keeps key order).
    input json not null,
    -- claim reads ranges, results join single rows.
    primary key (job_id, seq)
);

-- A foreign key to jobs costs 3 us a row (1M items: 1.3 s without, 4.3 s with). This trigger holds the same
-- rule once a statement: no item without its job, and the job cannot go away meanwhile.
create function items_need_their_job() returns trigger language plpgsql as $$
begin
    if exists (
        select from (select distinct job_id from fresh) f
        where not exists (select from jobs j where j.id = f.job_id for key share)
    ) then
        raise foreign_key_violation using message = 'items of a job that does not exist', table = 'items';
    end if;
    return null;
end $$;

create trigger items_need_their_job after insert on items
    referencing new table as fresh for each statement execute function items_need_their_job();

create function rows_are_insert_only() returns trigger language plpgsql as $$
begin
    raise integrity_constraint_violation using message = tg_table_name || ' are insert-only', table = tg_table_name;
end $$;

create trigger items_insert_only before update on items
    for each statement execute function rows_are_insert_only();
