-- What SQLite reads in its own way: lists come as JSON texts. There are no locks of rows: one transaction writes at a
-- time, and it begins before it reads.

-- insert_holds (rows) --
-- As they are placed: what is not named here is null, and `asks` is 0.
INSERT INTO hold (
    id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up,
    charge_to, charge_times, reserved_tokens, order_digest, kind, units
) VALUES (
    :id, :account_id, :key_id, :worker, 'pending', :amount_nanos, :plan, :event_price_nanos, :model, :streamed,
    :created_us, :marked_up, :charge_to, :charge_times, :reserved_tokens, :order_digest, :kind, :units
);

-- insert_hold_transfers (rows) --
INSERT INTO transfer (
    id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, over_hold_nanos
) VALUES (:id, 'hold', :debit_account_id, 1, :amount_nanos, :created_us, :hold_id, 0);

-- insert_end_transfers (rows) --
INSERT INTO transfer (
    id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events, event_price_nanos,
    over_hold_nanos
) VALUES (
    :id, :kind, :debit_account_id, 1, :amount_nanos, :created_us, :hold_id, :cost, :events, :event_price_nanos,
    :over_hold_nanos
);

-- end_holds (rows) --
-- As `end_hold`, many at once.
WITH ended (
    state, generation_id, served_model, prompt_tokens, answer_tokens, units, ended_us, id
) AS (VALUES (
    :state, :generation_id, :served_model, :prompt_tokens, :answer_tokens, :units, :ended_us, :id
))
UPDATE hold SET state = ended.state, generation_id = ended.generation_id, served_model = ended.served_model,
    prompt_tokens = ended.prompt_tokens, answer_tokens = ended.answer_tokens, units = ended.units,
    ended_us = ended.ended_us
FROM ended WHERE hold.id = ended.id AND hold.ended_us IS NULL;

-- end_named_holds (rows) --
WITH ended (
    state, served_model, prompt_tokens, answer_tokens, units, ended_us, id
) AS (VALUES (
    :state, :served_model, :prompt_tokens, :answer_tokens, :units, :ended_us, :id
))
UPDATE hold SET state = ended.state, served_model = ended.served_model, prompt_tokens = ended.prompt_tokens,
    answer_tokens = ended.answer_tokens, units = ended.units, ended_us = ended.ended_us
FROM ended WHERE hold.id = ended.id AND hold.ended_us IS NULL;

-- name_generations (rows) --
WITH named (generation_id, id) AS (VALUES (:generation_id, :id))
UPDATE hold SET generation_id = named.generation_id FROM named WHERE hold.id = named.id;

-- transfers_of --
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer WHERE id IN (SELECT value FROM json_each(:ids));

-- holds_of --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up,
    generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to, charge_times,
    reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units
FROM hold WHERE id IN (SELECT value FROM json_each(:ids));

-- lock_holds --
SELECT id, state, delivery FROM hold WHERE id IN (SELECT value FROM json_each(:ids));

-- lock_balances --
SELECT account_id, credits_nanos, debits_nanos, pending_nanos, limit_nanos, overdrawn_nanos
FROM balance WHERE account_id IN (SELECT value FROM json_each(:ids));

-- lock_allowances --
SELECT owner, account_id, limits, pending_nanos, total_nanos, day_nanos, week_nanos, month_nanos, counted_us, at_once,
    minute
FROM allowance WHERE owner IN (SELECT value FROM json_each(:ids));

-- lock_day_totals --
-- Whoever writes is alone already.
SELECT 1;

-- holds_in --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up,
    generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to, charge_times,
    reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units
FROM hold WHERE state IN (SELECT value FROM json_each(:states)) ORDER BY id;

-- holds_not_ended --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up,
    generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to, charge_times,
    reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units
FROM hold WHERE ended_us IS NULL AND state IN (SELECT value FROM json_each(:states)) ORDER BY id;

-- open_orphans --
UPDATE hold SET state = 'open', reason = 'the process that served it has gone', delivery = 'lost',
    ask_us = CASE WHEN generation_id IS NOT NULL THEN 0 END
WHERE ended_us IS NULL AND state = 'pending' AND worker IN (SELECT value FROM json_each(:workers))
RETURNING id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up,
    generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to, charge_times,
    reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units;

-- claim_questions --
UPDATE hold SET ask_us = :until WHERE id IN (
    SELECT id FROM hold WHERE (ask_us <= :now OR ask_us > :latest) AND state = 'open' ORDER BY ask_us LIMIT :most
) RETURNING id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up,
    generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to, charge_times,
    reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units;

-- take_up_runs --
UPDATE run SET worker = :worker WHERE finished_us IS NULL AND worker IN (SELECT value FROM json_each(:gone))
RETURNING id, account_id, key_id, worker, status, status_message, origin, input, timeout_seconds, memory_mbytes,
    limit_nanos, dataset_id, store_id, queue_id, started_us, finished_us, exit_code;

-- runs_forward --
SELECT id, account_id, key_id, worker, status, status_message, origin, input, timeout_seconds, memory_mbytes,
    limit_nanos, dataset_id, store_id, queue_id, started_us, finished_us, exit_code
FROM run
WHERE account_id = :account AND started_us >= :since AND started_us <= :until AND (:origin = '' OR origin = :origin)
AND (:statuses = '[]' OR status IN (SELECT value FROM json_each(:statuses)))
ORDER BY started_us ASC, id ASC LIMIT :limit OFFSET :offset;

-- runs_backward --
SELECT id, account_id, key_id, worker, status, status_message, origin, input, timeout_seconds, memory_mbytes,
    limit_nanos, dataset_id, store_id, queue_id, started_us, finished_us, exit_code
FROM run
WHERE account_id = :account AND started_us >= :since AND started_us <= :until AND (:origin = '' OR origin = :origin)
AND (:statuses = '[]' OR status IN (SELECT value FROM json_each(:statuses)))
ORDER BY started_us DESC, id DESC LIMIT :limit OFFSET :offset;

-- count_runs --
SELECT count(*) FROM run
WHERE account_id = :account AND started_us >= :since AND started_us <= :until AND (:origin = '' OR origin = :origin)
AND (:statuses = '[]' OR status IN (SELECT value FROM json_each(:statuses)));

-- item_outcomes --
SELECT number, json_extract(text, '$.status'), json_extract(text, '$.cost_usd'), json_extract(text, '$.fare_events'),
    json_extract(text, '$.fare_usd')
FROM (SELECT number, CAST(body AS TEXT) AS text FROM run_item WHERE dataset_id = :dataset) AS items;
