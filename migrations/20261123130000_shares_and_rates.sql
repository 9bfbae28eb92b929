-- Shares of jobs, rates of the last minute, and results that come a second time.

-- Share of a job among the jobs of its class, in percent of an ordinary one's: 200 is served twice as fast
-- while both wait. submit and advance divide the virtual time of its items by it.
alter table jobs add column weight smallint not null default 100 check (weight between 1 and 1000);
-- When a client last sent failed items back. A result stream that follows the job sends those again.
alter table jobs add column retried_at timestamptz;

-- Virtual time now advances by 1000 for an item of weight 100, so that heavier items still have a length.
update chunks set vtime = vtime * 1000;

-- What the rate of the last minute is made of: the results since the last claim, and the time they took.
-- claim sets the first two, every write of results the third.
alter table chunks
    add column claimed_at timestamptz,
    add column n_before integer not null default 0 check (n_before >= 0),
    add column result_at timestamptz;
