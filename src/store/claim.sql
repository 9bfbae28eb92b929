-- $1 worker, $2 model, $3 item budget, $4 lease in ms, $5 deaths from which a chunk is a suspect,
-- $6 jobs of which the worker has enough: if any, only what is level with the head of the queue is taken
--
-- Candidates are read in fair order without locks, as many as could be needed; the budget picks among them;
-- only the chosen rows are locked. Locking the candidates would lock hundreds of chunks to use a few.
with head as materialized (
    select class, vtime from chunks where state = 'ready' and model = $2 order by class desc, vtime limit 1
),
candidates as materialized (
    select id, n_items - n_succeeded - n_failed as n, class, vtime, deaths >= $5 as suspect
    from chunks
    where state = 'ready' and model = $2
    -- a suspect waits while another suspect runs in this process: a death would accuse both
      and (deaths < $5
           or not exists (select from chunks r where r.state = 'running' and r.worker = $1 and r.deaths >= $5))
      and (cardinality($6::uuid[]) = 0
           or job_id <> all($6) and (class, vtime) = (select class, vtime from head))
    order by class desc, vtime, id
    limit $3
),
ordered as (
    select id, suspect,
           sum(n) over (order by class desc, vtime, id rows unbounded preceding) - n as before,
           row_number() over (order by class desc, vtime, id) as place
    from candidates
),
-- a suspect at the head goes alone; elsewhere it is passed over until it is at the head
pick as materialized (
    select id from ordered
    where case when (select suspect from ordered where place = 1) then place = 1
               else not suspect and before < $3 end
),
got as materialized (
    select c.id from chunks c join pick using (id) where c.state = 'ready' for update of c skip locked
)
update chunks c
set state = 'running', attempt = attempt + 1, worker = $1, lease_until = now() + make_interval(secs => $4 / 1000),
    claimed_at = now(), n_before = n_succeeded + n_failed
from got
where c.id = got.id
returning c.id, c.job_id, c.stage::text as stage, c.lo, c.hi, c.seqs, c.attempt, c.tries
