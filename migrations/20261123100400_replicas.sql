-- Replicas: what each process says about its models, so that any process can answer for all of them.

create table replicas (
    -- One start of one process; a process that is gone stops refreshing its rows, and rescue removes them.
    worker uuid not null,
    model text not null,
    state text not null check (state in ('not_loaded', 'loading', 'ready', 'error')),
    -- ModelStatus. GET /v1/models/{name}.
    status json not null,
    updated_at timestamptz not null default now(),
    primary key (worker, model)
);

-- GET /v1/models/{name}: who else serves it.
create index replicas_by_model on replicas (model, updated_at);
