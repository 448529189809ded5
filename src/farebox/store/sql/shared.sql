-- Statements that both engines read, each under its name. Values stand as :name, which `sqlite3` fills in after
-- `.parameter set :account 2` and `psql` after `\set account 2`. Those marked (row) take a row of values in this order;
-- how holds and transfers are written, many at once, stands in each engine's own file.
--
-- Account 0 is where top-ups come from and 1 is where fares go; callers' begin with 2. A day has 86,400,000,000
-- microseconds. `core/books.py` and `core/allowances.py` name these numbers, and a test holds them to it.
--
-- Columns are spelled out and never `*`: a newer schema may have more of them while this code still serves.


-- The transfers.

-- insert_transfer (row) --
-- Of money that no order moved.
INSERT INTO transfer (
    id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events, event_price_nanos,
    over_hold_nanos, note
) VALUES (
    :id, :kind, :debit_account_id, :credit_account_id, :amount_nanos, :created_us, :hold_id, :cost, :events,
    :event_price_nanos, :over_hold_nanos, :note
);

-- transfer --
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer WHERE id = :id;

-- transfers_after --
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer WHERE id > :after ORDER BY id;

-- transfers_between --
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer WHERE id > :after AND id <= :upto ORDER BY id;

-- corrections --
-- By the index of what was paid in or adjusted, which has few rows.
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer WHERE kind IN ('top-up', 'adjustment') AND hold_id IS NOT NULL;

-- given_back --
SELECT CAST(coalesce(sum(amount_nanos), 0) AS BIGINT) FROM transfer
WHERE credit_account_id = :account AND kind IN ('top-up', 'adjustment') AND hold_id IS NOT NULL;

-- account_transfers --
-- A part for each index, and one for the holds that have not ended; so many after the one that was last.
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer
WHERE debit_account_id = :account AND cost IS NOT NULL AND (created_us, id) > (:since, :after) AND created_us < :until
UNION ALL
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer
WHERE debit_account_id = :account AND cost IS NULL AND kind <> 'hold'
AND (created_us, id) > (:since, :after) AND created_us < :until
UNION ALL
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer
WHERE credit_account_id = :account AND kind IN ('top-up', 'adjustment')
AND (created_us, id) > (:since, :after) AND created_us < :until
UNION ALL
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer
WHERE id IN (SELECT id FROM hold WHERE ended_us IS NULL AND account_id = :account)
AND (created_us, id) > (:since, :after) AND created_us < :until
ORDER BY created_us, id LIMIT :most;

-- usage --
SELECT CAST(coalesce(sum(t.amount_nanos), 0) AS BIGINT)
FROM transfer t JOIN hold h ON h.id = t.hold_id
WHERE t.debit_account_id = :account AND t.credit_account_id = 1 AND t.cost IS NOT NULL
AND t.created_us >= :since AND t.created_us < :until AND (CAST(:key AS BIGINT) IS NULL OR h.key_id = :key);

-- movements --
-- An account's money as it moved, oldest first: what was paid in, and what ended its orders; so many after the last one.
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer
WHERE debit_account_id = :account AND cost IS NOT NULL AND (created_us, id) > (:since, :after) AND created_us < :until
UNION ALL
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer
WHERE debit_account_id = :account AND cost IS NULL AND kind <> 'hold'
AND (created_us, id) > (:since, :after) AND created_us < :until
UNION ALL
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer
WHERE credit_account_id = :account AND kind IN ('top-up', 'adjustment')
AND (created_us, id) > (:since, :after) AND created_us < :until
ORDER BY created_us, id LIMIT :most;

-- moved_without_fare --
-- What was paid in and out, and corrections of fares. By the index of those, in which an operator's decisions on holds
-- stand, too: they are few.
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer
WHERE credit_account_id = :account AND kind IN ('top-up', 'adjustment')
AND created_us >= :since AND created_us < :until
UNION ALL
SELECT id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,
    event_price_nanos, over_hold_nanos, note
FROM transfer
WHERE credit_account_id IN (0, 1) AND kind IN ('top-up', 'adjustment') AND debit_account_id = :account AND cost IS NULL
AND created_us >= :since AND created_us < :until;

-- fares_between --
SELECT amount_nanos, events, cost FROM transfer
WHERE debit_account_id = :account AND cost IS NOT NULL AND created_us >= :since AND created_us < :until;

-- ended_orders --
-- What ended orders within a time, the latest first: so many ends, by the two indexes of these and nothing else. Of what
-- was not charged for, the ids say what ended an order.
SELECT t.id, t.created_us FROM transfer t
WHERE t.debit_account_id IN (
    SELECT id FROM account WHERE id > 1 AND (CAST(:account AS BIGINT) IS NULL OR id = :account)
) AND t.cost IS NOT NULL AND CAST(:posted AS BIGINT) = 1
AND t.created_us >= :since AND t.created_us <= :until AND (t.created_us, t.id) < (:until, :before)
UNION ALL
SELECT t.id, t.created_us FROM transfer t
WHERE t.debit_account_id IN (
    SELECT id FROM account WHERE id > 1 AND (CAST(:account AS BIGINT) IS NULL OR id = :account)
) AND t.cost IS NULL AND t.kind <> 'hold' AND CAST(:voided AS BIGINT) = 1
AND t.created_us >= :since AND t.created_us <= :until AND (t.created_us, t.id) < (:until, :before)
AND substr(t.id, length(t.id) - 3) = '-end'
ORDER BY 2 DESC, 1 DESC LIMIT :most;

-- ended_orders_of_end_user --
-- The same of an end user, by the index of its holds. An order that has ended has one transfer that ended it.
SELECT t.id, t.created_us FROM hold h JOIN transfer t ON t.id = h.id || '-end'
WHERE h.end_user = :end_user AND (CAST(:account AS BIGINT) IS NULL OR h.account_id = :account)
AND ((t.cost IS NOT NULL AND CAST(:posted AS BIGINT) = 1) OR (t.cost IS NULL AND CAST(:voided AS BIGINT) = 1))
AND t.created_us >= :since AND t.created_us <= :until AND (t.created_us, t.id) < (:until, :before)
ORDER BY t.created_us DESC, t.id DESC LIMIT :most;

-- orders_not_ended --
-- The orders that had not ended at a moment, the latest first: those that have not now, and those that ended since. Their
-- ids come first, by the indexes that know them: in the order of all ids each hold would be looked at.
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold WHERE id IN (
    SELECT id FROM hold
    WHERE ended_us IS NULL AND state IN ('pending', 'open')
    AND (CAST(:account AS BIGINT) IS NULL OR account_id = :account)
    UNION ALL
    SELECT hold_id FROM transfer
    WHERE debit_account_id IN (
        SELECT id FROM account WHERE id > 1 AND (CAST(:account AS BIGINT) IS NULL OR id = :account)
    ) AND cost IS NOT NULL AND created_us >= :as_of
    UNION ALL
    SELECT hold_id FROM transfer
    WHERE debit_account_id IN (
        SELECT id FROM account WHERE id > 1 AND (CAST(:account AS BIGINT) IS NULL OR id = :account)
    ) AND cost IS NULL AND kind <> 'hold' AND created_us >= :as_of
) AND created_us < :as_of AND id < :before AND created_us >= :since AND created_us < :until
ORDER BY id DESC LIMIT :most;


-- The fares of each day, summed by account, key, model, the model that served, and kind. The transaction that posts a
-- fare adds it. A cost stands in three whole numbers (`core/money.py`, limbs_of), so that sums are exact; what is finer
-- than that, in nearly none, as text.

-- add_day_totals (row) --
INSERT INTO day_total (
    account_id, day, key_id, model, served_model, kind, orders, events, fares_nanos, cost_9, cost_18, cost_27,
    prompt_tokens, answer_tokens, units, latest_us
) VALUES (
    :account_id, :day, :key_id, :model, :served_model, :kind, :orders, :events, :fares_nanos, :cost_first, :cost_middle,
    :cost_last, :prompt_tokens, :answer_tokens, :units, :latest_us
)
ON CONFLICT (account_id, day, key_id, model, served_model, kind) DO UPDATE
SET orders = day_total.orders + excluded.orders, events = day_total.events + excluded.events,
    fares_nanos = day_total.fares_nanos + excluded.fares_nanos, cost_9 = day_total.cost_9 + excluded.cost_9,
    cost_18 = day_total.cost_18 + excluded.cost_18, cost_27 = day_total.cost_27 + excluded.cost_27,
    prompt_tokens = day_total.prompt_tokens + excluded.prompt_tokens,
    answer_tokens = day_total.answer_tokens + excluded.answer_tokens, units = day_total.units + excluded.units,
    latest_us = CASE WHEN excluded.latest_us > day_total.latest_us THEN excluded.latest_us ELSE day_total.latest_us END;

-- finer_cost --
SELECT cost_finer FROM day_total
WHERE account_id = :account AND day = :day AND key_id = :key AND model = :model AND served_model = :served
AND kind = :kind;

-- put_finer_cost (row) --
UPDATE day_total SET cost_finer = :cost_finer
WHERE account_id = :account_id AND day = :day AND key_id = :key_id AND model = :model AND served_model = :served_model
AND kind = :kind;

-- all_day_totals --
SELECT account_id, day, key_id, model, served_model, kind, orders, events, fares_nanos, cost_9, cost_18, cost_27,
    cost_finer, prompt_tokens, answer_tokens, units, latest_us
FROM day_total;

-- totals_of_day --
SELECT account_id, day, key_id, model, served_model, kind, orders, events, fares_nanos, cost_9, cost_18, cost_27,
    cost_finer, prompt_tokens, answer_tokens, units, latest_us
FROM day_total WHERE day = :day;

-- drop_day_totals --
DELETE FROM day_total WHERE day = :day;

-- days_of_fares --
SELECT created_us / 86400000000 FROM transfer WHERE cost IS NOT NULL
UNION SELECT day FROM day_total ORDER BY 1;

-- fares_of_day --
SELECT t.debit_account_id, h.key_id, h.model, h.served_model, h.kind, h.end_user, h.tags, h.prompt_tokens,
    h.answer_tokens, h.units, t.cost, t.events, t.amount_nanos, t.created_us
FROM transfer t JOIN hold h ON h.id = t.hold_id
WHERE t.debit_account_id IN (SELECT id FROM account) AND t.cost IS NOT NULL
AND t.created_us >= :since AND t.created_us < :until;

-- add_attributed_totals (row) --
-- The same, of orders that say for whom they are, by their end users and tags, too: '' where there is none.
INSERT INTO attributed_total (
    account_id, day, end_user, tags, key_id, model, served_model, kind, orders, events, fares_nanos, cost_9, cost_18,
    cost_27, prompt_tokens, answer_tokens, units, latest_us
) VALUES (
    :account_id, :day, :end_user, :tags, :key_id, :model, :served_model, :kind, :orders, :events, :fares_nanos,
    :cost_first, :cost_middle, :cost_last, :prompt_tokens, :answer_tokens, :units, :latest_us
)
ON CONFLICT (account_id, day, end_user, tags, key_id, model, served_model, kind) DO UPDATE
SET orders = attributed_total.orders + excluded.orders, events = attributed_total.events + excluded.events,
    fares_nanos = attributed_total.fares_nanos + excluded.fares_nanos,
    cost_9 = attributed_total.cost_9 + excluded.cost_9, cost_18 = attributed_total.cost_18 + excluded.cost_18,
    cost_27 = attributed_total.cost_27 + excluded.cost_27,
    prompt_tokens = attributed_total.prompt_tokens + excluded.prompt_tokens,
    answer_tokens = attributed_total.answer_tokens + excluded.answer_tokens,
    units = attributed_total.units + excluded.units,
    latest_us = CASE WHEN excluded.latest_us > attributed_total.latest_us THEN excluded.latest_us
        ELSE attributed_total.latest_us END;

-- finer_attributed_cost --
SELECT cost_finer FROM attributed_total
WHERE account_id = :account AND day = :day AND end_user = :end_user AND tags = :tags AND key_id = :key
AND model = :model AND served_model = :served AND kind = :kind;

-- put_finer_attributed_cost (row) --
UPDATE attributed_total SET cost_finer = :cost_finer
WHERE account_id = :account_id AND day = :day AND end_user = :end_user AND tags = :tags AND key_id = :key_id
AND model = :model AND served_model = :served_model AND kind = :kind;

-- all_attributed_totals --
SELECT end_user, tags, account_id, day, key_id, model, served_model, kind, orders, events, fares_nanos, cost_9, cost_18,
    cost_27, cost_finer, prompt_tokens, answer_tokens, units, latest_us
FROM attributed_total;

-- attributed_totals_of_day --
SELECT end_user, tags, account_id, day, key_id, model, served_model, kind, orders, events, fares_nanos, cost_9, cost_18,
    cost_27, cost_finer, prompt_tokens, answer_tokens, units, latest_us
FROM attributed_total WHERE day = :day;

-- drop_attributed_totals --
DELETE FROM attributed_total WHERE day = :day;

-- end_user_spent --
-- What an end user spent: of all time, and since the month, the week and the day began.
SELECT CAST(coalesce(sum(fares_nanos), 0) AS BIGINT),
    CAST(coalesce(sum(CASE WHEN day >= :month THEN fares_nanos ELSE 0 END), 0) AS BIGINT),
    CAST(coalesce(sum(CASE WHEN day >= :week THEN fares_nanos ELSE 0 END), 0) AS BIGINT),
    CAST(coalesce(sum(CASE WHEN day >= :day THEN fares_nanos ELSE 0 END), 0) AS BIGINT)
FROM attributed_total WHERE account_id = :account AND end_user = :end_user AND end_user <> '';

-- end_user_held --
SELECT CAST(coalesce(sum(amount_nanos), 0) AS BIGINT), count(*) FILTER (WHERE state = 'pending')
FROM hold WHERE ended_us IS NULL AND account_id = :account AND end_user = :end_user;

-- end_users --
-- An account's end users with fares since a day, so many after the one that was last.
SELECT end_user, CAST(sum(orders) AS BIGINT), CAST(sum(fares_nanos) AS BIGINT), max(latest_us)
FROM attributed_total
WHERE account_id = :account AND end_user > :after AND end_user <> '' AND day >= :first
GROUP BY end_user ORDER BY end_user LIMIT :most;

-- end_user --
-- One of these.
SELECT CAST(coalesce(sum(orders), 0) AS BIGINT), CAST(coalesce(sum(fares_nanos), 0) AS BIGINT),
    CAST(coalesce(max(latest_us), 0) AS BIGINT)
FROM attributed_total
WHERE account_id = :account AND end_user = :end_user AND end_user <> '' AND day >= :first;

-- end_user_allowances --
-- Those of an account's end users that have limits of their own, so many after the owner that was last.
SELECT owner, account_id, limits, pending_nanos, total_nanos, day_nanos, week_nanos, month_nanos, counted_us, at_once,
    minute
FROM allowance WHERE account_id = :account AND substr(owner, 1, 9) = 'end_user ' AND limits <> '{}' AND owner > :after
ORDER BY owner LIMIT :most;

-- drop_unlimited_allowances --
-- Of an account's end users, those that have no limit of their own.
DELETE FROM allowance WHERE account_id = :account AND substr(owner, 1, 9) = 'end_user ' AND limits = '{}';

-- keep_secret --
INSERT INTO secret (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING;

-- secret --
SELECT value FROM secret WHERE name = :name;

-- totals --
-- What is not grouped by is -1 or ''.
SELECT CASE WHEN CAST(:by_account AS BIGINT) = 1 THEN account_id ELSE -1 END,
    CASE WHEN CAST(:by_day AS BIGINT) = 1 THEN day ELSE -1 END,
    CASE WHEN CAST(:by_key AS BIGINT) = 1 THEN key_id ELSE -1 END,
    CASE WHEN CAST(:by_model AS BIGINT) = 1 THEN model ELSE '' END,
    CASE WHEN CAST(:by_served_model AS BIGINT) = 1 THEN served_model ELSE '' END,
    CASE WHEN CAST(:by_kind AS BIGINT) = 1 THEN kind ELSE '' END,
    CAST(sum(orders) AS BIGINT), CAST(sum(events) AS BIGINT), CAST(sum(fares_nanos) AS BIGINT),
    CAST(sum(cost_9) AS BIGINT), CAST(sum(cost_18) AS BIGINT), CAST(sum(cost_27) AS BIGINT), NULL,
    CAST(sum(prompt_tokens) AS BIGINT), CAST(sum(answer_tokens) AS BIGINT), CAST(sum(units) AS BIGINT), max(latest_us)
FROM day_total
WHERE account_id IN (SELECT id FROM account WHERE CAST(:account AS BIGINT) IS NULL OR id = :account)
AND day >= :first AND day <= :last AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key)
AND (CAST(:model AS TEXT) IS NULL OR model = :model) AND (CAST(:kind AS TEXT) IS NULL OR kind = :kind)
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 2 DESC, 1, 3, 4, 5, 6 LIMIT :most;

-- total --
-- Their sum: without groups it takes a third of the time.
SELECT -1, -1, -1, '', '', '',
    CAST(coalesce(sum(orders), 0) AS BIGINT), CAST(coalesce(sum(events), 0) AS BIGINT),
    CAST(coalesce(sum(fares_nanos), 0) AS BIGINT), CAST(coalesce(sum(cost_9), 0) AS BIGINT),
    CAST(coalesce(sum(cost_18), 0) AS BIGINT), CAST(coalesce(sum(cost_27), 0) AS BIGINT), NULL,
    CAST(coalesce(sum(prompt_tokens), 0) AS BIGINT), CAST(coalesce(sum(answer_tokens), 0) AS BIGINT),
    CAST(coalesce(sum(units), 0) AS BIGINT), coalesce(max(latest_us), 0)
FROM day_total
WHERE account_id IN (SELECT id FROM account WHERE CAST(:account AS BIGINT) IS NULL OR id = :account)
AND day >= :first AND day <= :last AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key)
AND (CAST(:model AS TEXT) IS NULL OR model = :model) AND (CAST(:kind AS TEXT) IS NULL OR kind = :kind);

-- finer_totals --
-- What those costs lack.
SELECT account_id, day, key_id, model, served_model, kind, cost_finer FROM day_total
WHERE account_id IN (SELECT id FROM account WHERE CAST(:account AS BIGINT) IS NULL OR id = :account)
AND day >= :first AND day <= :last AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key)
AND (CAST(:model AS TEXT) IS NULL OR model = :model) AND (CAST(:kind AS TEXT) IS NULL OR kind = :kind)
AND cost_finer IS NOT NULL;

-- spent_since --
SELECT CAST(coalesce(sum(fares_nanos), 0) AS BIGINT) FROM day_total
WHERE account_id = :account AND day >= :first AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key);

-- spent_by_key --
SELECT key_id, CAST(sum(fares_nanos) AS BIGINT), max(latest_us) FROM day_total
WHERE account_id = :account AND day >= :first GROUP BY key_id;

-- activity --
SELECT day, model, served_model, CAST(sum(orders) AS BIGINT), CAST(sum(fares_nanos) AS BIGINT),
    CAST(sum(prompt_tokens) AS BIGINT), CAST(sum(answer_tokens) AS BIGINT)
FROM day_total
WHERE account_id IN (SELECT id FROM account WHERE CAST(:account AS BIGINT) IS NULL OR id = :account)
AND day >= :first AND day <= :last AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key)
GROUP BY day, model, served_model ORDER BY day DESC, model, served_model;


-- Holds. `ended_us IS NULL` says no more than the state does, but it is what the index of holds that have not ended is
-- made by.

-- update_hold (row) --
-- Only a hold that has not ended moves.
UPDATE hold SET state = :state, generation_id = :generation_id, served_model = :served_model,
    prompt_tokens = :prompt_tokens, answer_tokens = :answer_tokens, units = :units, reason = :reason,
    sent_us = :sent_us, head_us = :head_us, read_us = :read_us, ended_us = :ended_us, asks = :asks, ask_us = :ask_us
WHERE id = :id AND ended_us IS NULL;

-- end_hold (row) --
-- The same, as far as the end of a hold changes what was placed: an index that is not named is not written.
UPDATE hold SET state = :state, generation_id = :generation_id, served_model = :served_model,
    prompt_tokens = :prompt_tokens, answer_tokens = :answer_tokens, units = :units, sent_us = :sent_us,
    head_us = :head_us, read_us = :read_us, ended_us = :ended_us
WHERE id = :id AND ended_us IS NULL;

-- end_named_hold (row) --
-- And where the generation is the one that stands there.
UPDATE hold SET state = :state, served_model = :served_model, prompt_tokens = :prompt_tokens,
    answer_tokens = :answer_tokens, units = :units, sent_us = :sent_us,
    head_us = :head_us, read_us = :read_us, ended_us = :ended_us
WHERE id = :id AND ended_us IS NULL;

-- name_generation (row) --
UPDATE hold SET generation_id = :generation_id WHERE id = :id;

-- note_priced (row) --
-- Only of orders at upstreams that have a name, or tell no cost: others are written without.
UPDATE hold SET upstream = :upstream, priced = :priced WHERE id = :id AND ended_us IS NULL;

-- note_tried (row) --
-- Only of orders that one upstream did not serve.
UPDATE hold SET tried = :tried WHERE id = :id AND ended_us IS NULL;

-- note_job (row) --
-- Only of orders that begin jobs.
UPDATE hold SET job_id = :job_id WHERE id = :id AND ended_us IS NULL;

-- hold --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold WHERE id = :id;

-- holds_after --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold WHERE id > :after ORDER BY id;

-- holds_between --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold WHERE id > :after AND id <= :upto ORDER BY id LIMIT :most;

-- generation --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold WHERE generation_id = :generation AND account_id = :account ORDER BY id DESC LIMIT 1;

-- job --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold WHERE job_id = :job AND account_id = :account ORDER BY id DESC LIMIT 1;

-- pending_workers --
SELECT DISTINCT worker FROM hold WHERE ended_us IS NULL AND state = 'pending';

-- count_not_ended --
SELECT count(*) FILTER (WHERE state = 'pending'),
    count(*) FILTER (WHERE state = 'open' AND ask_us IS NOT NULL AND job_id IS NULL),
    count(*) FILTER (WHERE state = 'open' AND ask_us IS NULL),
    count(*) FILTER (WHERE state = 'open' AND ask_us IS NOT NULL AND job_id IS NOT NULL)
FROM hold WHERE ended_us IS NULL;

-- held_now --
SELECT CAST(coalesce(sum(amount_nanos), 0) AS BIGINT), count(*) FILTER (WHERE state = 'pending')
FROM hold
WHERE ended_us IS NULL AND account_id = :account AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key);

-- is_question_due --
-- A due time beyond the latest that is ever set was set by a clock that ran ahead: it is due now.
SELECT 1 FROM hold WHERE (ask_us <= :now OR ask_us > :latest) AND state = 'open' LIMIT 1;


-- Idempotency keys, and the answers kept under them.

-- key_use --
-- One statement a key: a batch has few, and the key is the primary one.
SELECT account_id, key_digest, order_digest, hold_id, created_us
FROM key_use WHERE account_id = :account AND key_digest = :digest;

-- put_key_use (row) --
INSERT INTO key_use (account_id, key_digest, order_digest, hold_id, created_us)
VALUES (:account_id, :key_digest, :order_digest, :hold_id, :created_us)
ON CONFLICT (account_id, key_digest) DO UPDATE
SET order_digest = excluded.order_digest, hold_id = excluded.hold_id, created_us = excluded.created_us;

-- forget_key_uses --
DELETE FROM key_use WHERE (account_id, key_digest) IN (
    SELECT account_id, key_digest FROM key_use WHERE created_us < :before LIMIT :most
);

-- kept_answer --
SELECT hold_id, content_type, body FROM kept_answer WHERE hold_id = :hold;

-- put_answer (row) --
INSERT INTO kept_answer (hold_id, content_type, body) VALUES (:hold_id, :content_type, :body)
ON CONFLICT (hold_id) DO UPDATE SET content_type = excluded.content_type, body = excluded.body;

-- forget_answers --
DELETE FROM kept_answer WHERE hold_id IN (
    SELECT hold_id FROM kept_answer
    WHERE hold_id NOT IN (SELECT hold_id FROM key_use WHERE created_us >= :before) LIMIT :most
);


-- Orders that are sent again without a key, and the answers that nobody was there to take.

-- same_not_ended --
-- By the index of holds that have not ended: an index of all digests would cost every order a page.
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold
WHERE ended_us IS NULL AND state IN ('pending', 'open') AND created_us > :since AND key_id = :key
AND order_digest = :digest
ORDER BY created_us, id;

-- same_answered --
SELECT h.id, h.account_id, h.key_id, h.worker, h.state, h.amount_nanos, h.plan, h.event_price_nanos, h.model, h.streamed,
    h.created_us, h.marked_up, h.generation_id, h.served_model, h.prompt_tokens, h.answer_tokens, h.reason, h.ended_us,
    h.asks, h.ask_us, h.charge_to, h.charge_times, h.reserved_tokens, h.order_digest, h.delivery, h.upstream, h.priced,
    h.job_id, h.kind,
    h.units, h.end_user, h.tags, h.sent_us, h.head_us, h.read_us, h.tried
FROM undelivered_answer u JOIN hold h ON h.id = u.hold_id
WHERE u.order_digest = :digest AND u.key_id = :key AND u.created_us > :since
ORDER BY u.created_us, u.hold_id;

-- same_posted --
SELECT h.id, h.worker FROM transfer t JOIN hold h ON h.id = t.hold_id
WHERE t.debit_account_id = :account AND t.created_us > :lately AND t.cost IS NOT NULL AND h.key_id = :key
AND h.order_digest = :digest
ORDER BY t.created_us DESC;

-- mark_delivery --
UPDATE hold SET delivery = :delivery WHERE id = :id AND state = :state AND delivery IS NULL;

-- same_undelivered --
SELECT hold_id, body IS NOT NULL, given_us FROM undelivered_answer
WHERE order_digest = :digest AND key_id = :key AND created_us > :since
ORDER BY created_us DESC, hold_id;

-- undelivered_body --
SELECT body FROM undelivered_answer WHERE hold_id = :hold;

-- put_undelivered (row) --
INSERT INTO undelivered_answer (hold_id, key_id, order_digest, created_us, body)
VALUES (:hold_id, :key_id, :order_digest, :created_us, :body)
ON CONFLICT (hold_id) DO UPDATE SET body = excluded.body WHERE excluded.body IS NOT NULL;

-- give_undelivered --
UPDATE undelivered_answer SET given_us = :now WHERE hold_id = :hold AND given_us IS NULL;

-- forget_undelivered --
DELETE FROM undelivered_answer WHERE created_us < :before;


-- Answers that are kept for the same order again, by choice.

-- cached_answer --
SELECT digest, generation_id, content_type, kept_us, until_us, body FROM cached_answer
WHERE digest = :digest AND until_us > :now;

-- put_cached (row) --
INSERT INTO cached_answer (digest, generation_id, content_type, kept_us, until_us, body, size)
VALUES (:digest, :generation_id, :content_type, :kept_us, :until_us, :body, :size)
ON CONFLICT (digest) DO UPDATE
SET generation_id = excluded.generation_id, content_type = excluded.content_type, kept_us = excluded.kept_us,
    until_us = excluded.until_us, body = excluded.body, size = excluded.size;

-- drop_expired --
DELETE FROM cached_answer WHERE until_us <= :now;

-- measure_cached --
SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM cached_answer;

-- drop_oldest_cached --
-- All but the latest that are so large together.
DELETE FROM cached_answer WHERE digest IN (
    SELECT digest FROM (
        SELECT digest, sum(size) OVER (ORDER BY kept_us DESC, digest) AS upto FROM cached_answer
    ) AS latest WHERE upto > :most
);


-- Answers that are kept for their accounts.

-- stored --
SELECT account_id, id, previous_id, status, created_us, until_us, input, answer, generation_id, background, worker,
    events
FROM stored_response WHERE account_id = :account AND id = :id AND until_us > :now;

-- stored_chain --
-- An answer and those that it continues, the latest first.
WITH RECURSIVE chain AS (
    SELECT account_id, id, previous_id, status, created_us, until_us, input, answer, generation_id, background, worker,
        0 AS depth
    FROM stored_response WHERE account_id = :account AND id = :id AND until_us > :now
    UNION ALL
    SELECT s.account_id, s.id, s.previous_id, s.status, s.created_us, s.until_us, s.input,
        s.answer, s.generation_id, s.background, s.worker, chain.depth + 1
    FROM stored_response AS s JOIN chain ON s.account_id = chain.account_id AND s.id = chain.previous_id
    WHERE s.until_us > :now AND chain.depth < :most
) SELECT account_id, id, previous_id, status, created_us, until_us, input, answer, generation_id, background, worker
FROM chain ORDER BY depth;

-- put_stored (row) --
INSERT INTO stored_response (
    account_id, id, previous_id, status, created_us, until_us, input, answer, generation_id, background, worker,
    events, size
) VALUES (
    :account_id, :id, :previous_id, :status, :created_us, :until_us, :input, :answer, :generation_id, :background,
    :worker, :events, :size
) ON CONFLICT (account_id, id) DO UPDATE
SET previous_id = excluded.previous_id, status = excluded.status, created_us = excluded.created_us,
    until_us = excluded.until_us, input = excluded.input, answer = excluded.answer,
    generation_id = excluded.generation_id, background = excluded.background, worker = excluded.worker,
    events = excluded.events, size = excluded.size;

-- begin_stored (row) --
-- As put_stored, where there is none.
INSERT INTO stored_response (
    account_id, id, previous_id, status, created_us, until_us, input, answer, generation_id, background, worker,
    events, size
) VALUES (
    :account_id, :id, :previous_id, :status, :created_us, :until_us, :input, :answer, :generation_id, :background,
    :worker, :events, :size
) ON CONFLICT (account_id, id) DO NOTHING;

-- end_stored (row) --
UPDATE stored_response SET status = :status, until_us = :until_us, answer = :answer, generation_id = :generation_id,
    events = :events, size = :size
WHERE account_id = :account_id AND id = :id AND status IN ('queued', 'in_progress');

-- stored_running --
SELECT account_id, id, previous_id, status, created_us, until_us, input, answer, generation_id, background, worker
FROM stored_response WHERE status IN ('queued', 'in_progress');

-- keep_stored_until --
UPDATE stored_response SET until_us = :until
WHERE account_id = :account AND id = :id AND until_us < :until;

-- delete_stored --
DELETE FROM stored_response WHERE account_id = :account AND id = :id AND until_us > :now;

-- measure_stored --
SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM stored_response WHERE account_id = :account;

-- drop_expired_stored --
DELETE FROM stored_response WHERE until_us <= :now AND (account_id, id) IN (
    SELECT account_id, id FROM stored_response WHERE until_us <= :now LIMIT :most
);

-- Presets of accounts.

-- insert_preset (row) --
INSERT INTO preset_version (account_id, slug, version, first_us, created_us, system_prompt, config)
VALUES (:account_id, :slug, :version, :first_us, :created_us, :system_prompt, :config);

-- latest_preset --
SELECT account_id, slug, version, first_us, created_us, system_prompt, config FROM preset_version
WHERE account_id = :account AND slug = :slug ORDER BY version DESC LIMIT 1;

-- preset_version --
SELECT account_id, slug, version, first_us, created_us, system_prompt, config FROM preset_version
WHERE account_id = :account AND slug = :slug AND version = :version;

-- preset_versions --
SELECT account_id, slug, version, first_us, created_us, system_prompt, config FROM preset_version
WHERE account_id = :account AND slug = :slug ORDER BY version;

-- latest_presets --
SELECT account_id, slug, version, first_us, created_us, system_prompt, config FROM preset_version p
WHERE account_id = :account AND version = (
    SELECT max(v.version) FROM preset_version v WHERE v.account_id = p.account_id AND v.slug = p.slug
)
ORDER BY created_us DESC, slug;

-- count_presets --
SELECT count(DISTINCT slug) FROM preset_version WHERE account_id = :account;

-- drop_preset_versions --
DELETE FROM preset_version WHERE account_id = :account AND slug = :slug AND version <= :until;


-- Balances and allowances.

-- balance --
SELECT account_id, credits_nanos, debits_nanos, pending_nanos, limit_nanos, overdrawn_nanos
FROM balance WHERE account_id = :account;

-- all_balances --
SELECT account_id, credits_nanos, debits_nanos, pending_nanos, limit_nanos, overdrawn_nanos
FROM balance ORDER BY account_id;

-- insert_balance (row) --
INSERT INTO balance (account_id, credits_nanos, debits_nanos, pending_nanos, limit_nanos, overdrawn_nanos)
VALUES (:account_id, 0, 0, 0, :limit_nanos, 0);

-- update_balance (row) --
UPDATE balance SET credits_nanos = :credits_nanos, debits_nanos = :debits_nanos, pending_nanos = :pending_nanos,
    overdrawn_nanos = :overdrawn_nanos
WHERE account_id = :account_id;

-- allowance --
SELECT owner, account_id, limits, pending_nanos, total_nanos, day_nanos, week_nanos, month_nanos, counted_us, at_once,
    minute
FROM allowance WHERE owner = :owner;

-- all_allowances --
SELECT owner, account_id, limits, pending_nanos, total_nanos, day_nanos, week_nanos, month_nanos, counted_us, at_once,
    minute
FROM allowance ORDER BY owner;

-- insert_allowance (row) --
INSERT INTO allowance (
    owner, account_id, limits, pending_nanos, total_nanos, day_nanos, week_nanos, month_nanos, counted_us, at_once,
    minute
) VALUES (
    :owner, :account_id, :limits, :pending_nanos, :total_nanos, :day_nanos, :week_nanos, :month_nanos, :counted_us,
    :at_once, :minute
);

-- update_allowance (row) --
UPDATE allowance SET pending_nanos = :pending_nanos, total_nanos = :total_nanos, day_nanos = :day_nanos,
    week_nanos = :week_nanos, month_nanos = :month_nanos, counted_us = :counted_us, at_once = :at_once,
    minute = :minute
WHERE owner = :owner;

-- drop_allowance --
DELETE FROM allowance WHERE owner = :owner;

-- not_served_any_more (row) --
UPDATE allowance SET at_once = at_once - :count WHERE owner = :owner;


-- Accounts, keys, plans; a revision that changes with them.

-- insert_account (row) --
INSERT INTO account (name, plan, created_us) VALUES (:name, :plan, :created_us) RETURNING id;

-- accounts --
SELECT a.id, a.name, a.plan, a.created_us, a.closed_us, al.limits
FROM account a LEFT JOIN allowance al ON al.owner = 'account ' || a.id
WHERE a.id >= 2 ORDER BY a.id;

-- account_named --
SELECT a.id, a.name, a.plan, a.created_us, a.closed_us, al.limits
FROM account a LEFT JOIN allowance al ON al.owner = 'account ' || a.id
WHERE a.name = :name AND a.id >= 2;

-- change_account (row) --
UPDATE account SET name = :name, plan = :plan, closed_us = :closed_us WHERE id = :id;

-- insert_key (row) --
INSERT INTO api_key (account_id, label, digest, hint, created_us)
VALUES (:account_id, :label, :digest, :hint, :created_us) RETURNING id;

-- keys --
SELECT k.id, k.account_id, k.label, k.digest, k.hint, k.created_us, k.revoked_us, k.disabled, k.expires_us,
    k.updated_us, k.cache_seconds, k.may_store, k.old_digest, k.old_until_us, kl.limits
FROM api_key k LEFT JOIN allowance kl ON kl.owner = 'key ' || k.id
WHERE k.account_id = :account ORDER BY k.id;

-- key_of_digest --
SELECT a.id, a.name, a.plan, a.created_us, a.closed_us, al.limits,
    k.id, k.account_id, k.label, k.digest, k.hint, k.created_us, k.revoked_us, k.disabled, k.expires_us, k.updated_us,
    k.cache_seconds, k.may_store, k.old_digest, k.old_until_us, kl.limits
FROM api_key k JOIN account a ON a.id = k.account_id
LEFT JOIN allowance al ON al.owner = 'account ' || a.id
LEFT JOIN allowance kl ON kl.owner = 'key ' || k.id
WHERE k.digest = :digest OR k.old_digest = :digest;

-- key_of_id --
SELECT a.id, a.name, a.plan, a.created_us, a.closed_us, al.limits,
    k.id, k.account_id, k.label, k.digest, k.hint, k.created_us, k.revoked_us, k.disabled, k.expires_us, k.updated_us,
    k.cache_seconds, k.may_store, k.old_digest, k.old_until_us, kl.limits
FROM api_key k JOIN account a ON a.id = k.account_id
LEFT JOIN allowance al ON al.owner = 'account ' || a.id
LEFT JOIN allowance kl ON kl.owner = 'key ' || k.id
WHERE k.id = :id;

-- change_key (row) --
UPDATE api_key SET label = :label, revoked_us = :revoked_us, disabled = :disabled, expires_us = :expires_us,
    updated_us = :updated_us, cache_seconds = :cache_seconds, may_store = :may_store
WHERE id = :id;

-- rotate_key (row) --
UPDATE api_key SET digest = :digest, hint = :hint, expires_us = :expires_us, updated_us = :updated_us,
    old_digest = :old_digest, old_until_us = :old_until_us
WHERE id = :id;

-- is_any_key_foreign --
-- The prefix is `core.keys.PREFIX`. What a key was before it was rotated nobody knows.
SELECT 1 FROM api_key WHERE substr(hint, 1, 6) <> 'sk-fb-' OR old_digest IS NOT NULL LIMIT 1;

-- insert_management_key (row) --
INSERT INTO management_key (label, digest, hint, account_id, created_us)
VALUES (:label, :digest, :hint, :account_id, :created_us) RETURNING id;

-- management_keys --
SELECT id, label, digest, hint, account_id, created_us, revoked_us FROM management_key ORDER BY id;

-- management_key_of_digest --
SELECT id, label, digest, hint, account_id, created_us, revoked_us
FROM management_key WHERE digest = :digest;

-- revoke_management_key --
UPDATE management_key SET revoked_us = :revoked WHERE id = :id AND revoked_us IS NULL
RETURNING account_id;

-- published_plans --
SELECT plans, published_by, published_us FROM published_plans;

-- drop_published_plans --
DELETE FROM published_plans;

-- publish_plans (row) --
INSERT INTO published_plans (plans, published_by, published_us) VALUES (:plans, :published_by, :published_us);

-- revision --
SELECT value FROM directory_revision;

-- bump_revision --
UPDATE directory_revision SET value = value + 1;


-- Price lists that all nodes share.

-- kept_prices --
SELECT bodies, read_us FROM price_list WHERE source = :source AND read_us > :after;

-- claim_prices --
-- A claim that ends later than this one would was made by a clock that ran ahead: it counts no more.
INSERT INTO price_list (source, claimed_us) VALUES (:source, :until)
ON CONFLICT (source) DO UPDATE
SET claimed_us = :until WHERE price_list.claimed_us <= :now OR price_list.claimed_us > :until;

-- keep_prices (row) --
INSERT INTO price_list (source, bodies, read_us, claimed_us) VALUES (:source, :bodies, :read_us, 0)
ON CONFLICT (source) DO UPDATE SET bodies = excluded.bodies, read_us = excluded.read_us, claimed_us = 0;


-- Lists by which the usage of orders becomes their cost. None is ever changed or dropped.

-- keep_tariffs (row) --
INSERT INTO tariffs (version, content, first_used_us) VALUES (:version, :content, :first_used_us)
ON CONFLICT (version) DO NOTHING;

-- all_tariffs --
SELECT version, content, first_used_us FROM tariffs ORDER BY first_used_us, version;


-- How upstreams stand, as all nodes see it: written when that changes, and read once a second.

-- standings --
SELECT upstream, model, failures, until_us, reason, changed_us FROM upstream_state;

-- put_standing (row) --
-- The later word holds, unless it was said by a clock that ran ahead: five minutes are the longest that is ever set.
INSERT INTO upstream_state (upstream, model, failures, until_us, reason, changed_us)
VALUES (:upstream, :model, :failures, :until_us, :reason, :changed_us)
ON CONFLICT (upstream, model) DO UPDATE
SET failures = excluded.failures, until_us = excluded.until_us, reason = excluded.reason,
    changed_us = excluded.changed_us
WHERE excluded.changed_us > upstream_state.changed_us
OR upstream_state.changed_us > excluded.changed_us + 300000000;

-- forget_standings --
DELETE FROM upstream_state WHERE changed_us < :before;


-- Fares that an outside biller charges, and the charges that they become part of. Those of requests name the request
-- in `charge_to`; those that are charged together, with the run, have '' there.

-- insert_charged_fare (row) --
INSERT INTO charged_fare (transfer_id, charge_to, count, charge_id)
VALUES (:transfer_id, :charge_to, :count, :charge_id);

-- all_charged_fares --
SELECT transfer_id, charge_to, count, charge_id FROM charged_fare;

-- untold_since --
SELECT min(t.created_us) FROM charged_fare f JOIN transfer t ON t.id = f.transfer_id
WHERE f.charge_id IS NULL OR f.charge_id IN (SELECT id FROM charge WHERE state = 'due');

-- is_any_loose --
SELECT 1 FROM charged_fare WHERE charge_id IS NULL LIMIT 1;

-- loose_of_requests --
SELECT transfer_id, charge_to, count FROM charged_fare WHERE charge_id IS NULL AND charge_to <> '';

-- loose_events_of_run --
SELECT CAST(coalesce(sum(count), 0) AS BIGINT) FROM charged_fare WHERE charge_id IS NULL AND charge_to = '';

-- bundle --
UPDATE charged_fare SET charge_id = :charge WHERE transfer_id = :transfer;

-- bundle_run --
UPDATE charged_fare SET charge_id = :charge WHERE charge_id IS NULL AND charge_to = '';

-- insert_charge (row) --
INSERT INTO charge (id, charge_to, count, window_us, done, state, said, ended_us)
VALUES (:id, :charge_to, :count, :window_us, :done, :state, :said, :ended_us);

-- adopt_charge (row) --
INSERT INTO charge (id, charge_to, count, window_us, done, state, said, ended_us)
VALUES (:id, :charge_to, :count, :window_us, :done, :state, :said, :ended_us)
ON CONFLICT DO NOTHING;

-- change_charge --
UPDATE charge SET window_us = :window, done = :done, state = :state, said = :said, ended_us = :ended
WHERE id = :id AND state = 'due';

-- due_charges --
SELECT id, charge_to, count, window_us, done, state, said, ended_us FROM charge WHERE state = 'due' ORDER BY id;

-- is_run_charge_due --
SELECT 1 FROM charge WHERE state = 'due' AND charge_to = '' LIMIT 1;

-- all_charges --
SELECT id, charge_to, count, window_us, done, state, said, ended_us FROM charge ORDER BY id;

-- counted_events --
SELECT CAST(coalesce(sum(done), 0) AS BIGINT) FROM charge WHERE state <> 'due';

-- unfinished_orders --
-- The ledger names the transfer that ends a hold `HOLD-end`. What is null here stays behind with these books.
SELECT a.name, t.cost, f.charge_id,
    h.id, h.account_id, h.key_id, h.worker, h.state, h.amount_nanos, h.plan, h.event_price_nanos, h.model, h.streamed,
    h.created_us, h.marked_up, h.generation_id, h.served_model, h.prompt_tokens, h.answer_tokens, h.reason, h.ended_us,
    h.asks, h.ask_us, h.charge_to, h.charge_times, h.reserved_tokens, NULL, NULL, h.upstream, NULL, h.job_id, h.kind,
    h.units, h.end_user, h.tags, h.sent_us, h.head_us, h.read_us, h.tried
FROM hold h JOIN account a ON a.id = h.account_id
LEFT JOIN transfer t ON t.id = h.id || '-end'
LEFT JOIN charged_fare f ON f.transfer_id = t.id
LEFT JOIN charge c ON c.id = f.charge_id
WHERE h.charge_to IS NOT NULL
AND (h.ended_us IS NULL OR (f.transfer_id IS NOT NULL AND (c.id IS NULL OR c.state = 'due')));


-- The console: who is signed in, and what may be done once; and what its pages show.

-- console_session --
-- As long as the key holds that it was opened with, by the digest that it was opened with.
SELECT s.created_us, s.until_us, coalesce(k.label, m.label), coalesce(k.hint, m.hint), s.management_key_id,
    s.api_key_id, a.id, a.name, a.plan, a.created_us
FROM console_session s
LEFT JOIN api_key k ON k.id = s.api_key_id
LEFT JOIN management_key m ON m.id = s.management_key_id
LEFT JOIN account a ON a.id = coalesce(k.account_id, m.account_id)
WHERE s.digest = :digest AND s.until_us > :now AND s.created_us > :since
AND k.revoked_us IS NULL AND m.revoked_us IS NULL AND (k.expires_us IS NULL OR k.expires_us > :now)
AND (k.id IS NULL OR (a.closed_us IS NULL AND (
    k.digest = s.key_digest OR (k.old_digest = s.key_digest AND k.old_until_us > :now)
)));

-- open_console_session (row) --
INSERT INTO console_session (digest, api_key_id, management_key_id, key_digest, created_us, until_us)
VALUES (:digest, :api_key_id, :management_key_id, :key_digest, :created_us, :until_us);

-- extend_console_session --
UPDATE console_session SET until_us = :until WHERE digest = :digest AND until_us < :until;

-- close_console_session --
DELETE FROM console_session WHERE digest = :digest;

-- forget_console_sessions --
-- Those that have ended, and of one key all but the latest.
DELETE FROM console_session WHERE until_us <= :now OR created_us <= :since OR digest IN (
    SELECT digest FROM console_session
    WHERE api_key_id = :api_key OR management_key_id = :management_key
    ORDER BY created_us DESC LIMIT 1000 OFFSET :most
);

-- allow_once (row) --
INSERT INTO console_once (digest, api_key_id, until_us) VALUES (:digest, :api_key_id, :until_us);

-- take_once --
DELETE FROM console_once WHERE digest = :digest RETURNING api_key_id, until_us;

-- forget_once --
DELETE FROM console_once WHERE until_us <= :now;

-- console_open --
SELECT id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,
    marked_up, generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,
    charge_times, reserved_tokens, order_digest, delivery, upstream, priced, job_id, kind, units, end_user, tags,
    sent_us, head_us, read_us, tried
FROM hold
WHERE ended_us IS NULL AND state = 'open' AND (CAST(:account AS BIGINT) IS NULL OR account_id = :account)
AND id > :after
ORDER BY id LIMIT :most;

-- console_keys --
SELECT a.id, a.name, a.plan, a.created_us, a.closed_us, al.limits,
    k.id, k.account_id, k.label, k.digest, k.hint, k.created_us, k.revoked_us, k.disabled, k.expires_us, k.updated_us,
    k.cache_seconds, k.may_store, k.old_digest, k.old_until_us, kl.limits
FROM api_key k JOIN account a ON a.id = k.account_id
LEFT JOIN allowance al ON al.owner = 'account ' || a.id
LEFT JOIN allowance kl ON kl.owner = 'key ' || k.id
WHERE (CAST(:account AS BIGINT) IS NULL OR k.account_id = :account) AND k.id < :before
ORDER BY k.id DESC LIMIT :most;

-- console_account --
SELECT a.id, a.name, a.plan, a.created_us, a.closed_us, al.limits,
    b.account_id, b.credits_nanos, b.debits_nanos, b.pending_nanos, b.limit_nanos, b.overdrawn_nanos
FROM account a JOIN balance b ON b.account_id = a.id
LEFT JOIN allowance al ON al.owner = 'account ' || a.id
WHERE a.id = :account;

-- console_accounts --
SELECT a.id, a.name, a.plan, a.created_us, a.closed_us, al.limits,
    b.account_id, b.credits_nanos, b.debits_nanos, b.pending_nanos, b.limit_nanos, b.overdrawn_nanos
FROM account a JOIN balance b ON b.account_id = a.id
LEFT JOIN allowance al ON al.owner = 'account ' || a.id
WHERE a.id > :after AND lower(a.name) LIKE :like
ORDER BY a.id LIMIT :most;

-- console_standing --
SELECT count(*), CAST(coalesce(sum(credits_nanos - debits_nanos), 0) AS BIGINT),
    CAST(coalesce(sum(pending_nanos), 0) AS BIGINT)
FROM balance WHERE CAST(:account AS BIGINT) IS NULL OR account_id = :account;


-- Alerts: where they go, what is raised, and what is on its way.

-- add_receiver (row) --
INSERT INTO alert_receiver (label, url, form, secret, kinds, account_id, created_us)
VALUES (:label, :url, :form, :secret, :kinds, :account_id, :created_us)
RETURNING id;

-- receivers --
SELECT id, label, url, form, secret, kinds, account_id, created_us FROM alert_receiver ORDER BY id;

-- drop_receiver --
DELETE FROM alert_receiver WHERE id = :id;

-- drop_deliveries --
DELETE FROM alert_delivery WHERE receiver_id = :id;

-- raised --
SELECT name, level, since_us, until_us FROM alert_raised;

-- raise_trouble (row) --
-- Gives a row to the one process that is to tell it.
INSERT INTO alert_raised (name, level, since_us, until_us) VALUES (:name, :level, :since_us, :until_us)
ON CONFLICT (name) DO UPDATE SET level = excluded.level, until_us = excluded.until_us
WHERE alert_raised.level < excluded.level
RETURNING name;

-- note_raised (row) --
INSERT INTO alert_raised (name, level, since_us, until_us) VALUES (:name, :level, :since_us, :until_us)
ON CONFLICT (name) DO UPDATE SET until_us = excluded.until_us WHERE alert_raised.until_us < excluded.until_us;

-- forget_raised --
DELETE FROM alert_raised WHERE name = :name AND until_us <= :now;

-- forget_all_raised --
DELETE FROM alert_raised;

-- put_delivery (row) --
-- None where its receiver has been removed meanwhile.
INSERT INTO alert_delivery (
    id, receiver_id, kind, body, created_us, due_us, attempts, state, said, ended_us
)
SELECT :id, r.id, :kind, :body, CAST(:created_us AS BIGINT), CAST(:due_us AS BIGINT), CAST(:attempts AS INTEGER),
    :state, :said, CAST(:ended_us AS BIGINT)
FROM alert_receiver r WHERE r.id = :receiver_id;

-- change_delivery --
UPDATE alert_delivery SET due_us = :due, attempts = :attempts, state = :state, said = :said, ended_us = :ended
WHERE id = :id AND state = 'due';

-- is_delivery_due --
-- One that is due later than anything is ever put off was put off by a clock that ran ahead.
SELECT 1 FROM alert_delivery WHERE due_us IS NOT NULL AND (due_us <= :now OR due_us > :latest) LIMIT 1;

-- deliveries --
-- The latest first, those behind one of them where it is named; to one receiver, to those of one account, or to all.
SELECT id, receiver_id, kind, body, created_us, due_us, attempts, state, said, ended_us FROM alert_delivery
WHERE (CAST(:receiver AS BIGINT) IS NULL OR receiver_id = :receiver)
AND (CAST(:account AS BIGINT) IS NULL OR receiver_id IN (SELECT id FROM alert_receiver WHERE account_id = :account))
AND (CAST(:before AS TEXT) = '' OR (created_us, id) < (SELECT d.created_us, d.id FROM alert_delivery d WHERE d.id = :before))
ORDER BY created_us DESC, id DESC LIMIT :most;

-- forget_deliveries --
DELETE FROM alert_delivery WHERE created_us < :before AND ended_us IS NOT NULL;

-- low_accounts --
-- Of so many accounts those that have less left than is theirs to have, or `below` where none is set: postpaid ones
-- without a limit never, nor those that are closed, or were never paid anything.
SELECT a.id, a.name, b.credits_nanos - b.debits_nanos + b.limit_nanos, coalesce(l.below_nanos, :below)
FROM balance b JOIN account a ON a.id = b.account_id LEFT JOIN low_balance l ON l.account_id = b.account_id
WHERE b.account_id > :after AND b.account_id <= :upto AND b.limit_nanos IS NOT NULL AND a.closed_us IS NULL
AND b.credits_nanos + b.limit_nanos > 0
AND b.credits_nanos - b.debits_nanos + b.limit_nanos < coalesce(l.below_nanos, :below)
ORDER BY 3, 1;

-- last_account --
SELECT coalesce(max(id), 0) FROM account;

-- allowances_behind --
SELECT owner, account_id, limits, pending_nanos, total_nanos, day_nanos, week_nanos, month_nanos, counted_us, at_once,
    minute
FROM allowance WHERE owner > :after ORDER BY owner LIMIT :most;

-- low_balance --
SELECT below_nanos FROM low_balance WHERE account_id = :account;

-- set_low_balance (row) --
INSERT INTO low_balance (account_id, below_nanos) VALUES (:account_id, :below_nanos)
ON CONFLICT (account_id) DO UPDATE SET below_nanos = excluded.below_nanos;

-- unset_low_balance --
DELETE FROM low_balance WHERE account_id = :account;

-- console_spent_by_model --
-- What the overview is made of, and no more than that: sums of what few columns have, of days and models.
SELECT -1, day, -1, model, CAST(sum(orders) AS BIGINT), CAST(sum(fares_nanos) AS BIGINT), 0, 0
FROM day_total
WHERE account_id IN (SELECT id FROM account WHERE CAST(:account AS BIGINT) IS NULL OR id = :account)
AND day >= :first AND day <= :last
GROUP BY day, model;

-- console_spent_by_key --
-- The same of accounts and keys.
SELECT account_id, -1, key_id, '', CAST(sum(orders) AS BIGINT), CAST(sum(fares_nanos) AS BIGINT), 0, 0
FROM day_total
WHERE account_id IN (SELECT id FROM account WHERE CAST(:account AS BIGINT) IS NULL OR id = :account)
AND day >= :first AND day <= :last
GROUP BY account_id, key_id;

-- console_spent_sum --
-- And of everything.
SELECT -1, -1, -1, '', CAST(coalesce(sum(orders), 0) AS BIGINT), CAST(coalesce(sum(fares_nanos), 0) AS BIGINT), 0, 0
FROM day_total
WHERE account_id IN (SELECT id FROM account WHERE CAST(:account AS BIGINT) IS NULL OR id = :account)
AND day >= :first AND day <= :last AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key)
AND (CAST(:model AS TEXT) IS NULL OR model = :model);

-- live_counts --
-- Orders that have not ended: those under way, and those of a time whose cost is asked for or to be decided.
SELECT count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'open')
FROM hold
WHERE ended_us IS NULL AND state IN ('pending', 'open') AND (state = 'pending' OR created_us >= :since)
AND (CAST(:account AS BIGINT) IS NULL OR account_id = :account)
AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key)
AND (CAST(:model AS TEXT) IS NULL OR model = :model OR served_model = :model);

-- live_not_ended --
-- The latest of them, with the names of who placed them.
SELECT h.id, h.account_id, a.name, h.key_id, CASE WHEN k.label <> '' THEN k.label ELSE k.hint END,
    coalesce(h.served_model, h.model), h.state, h.streamed, h.created_us, h.ended_us, h.prompt_tokens, h.answer_tokens,
    h.amount_nanos, NULL, NULL
FROM hold h JOIN account a ON a.id = h.account_id JOIN api_key k ON k.id = h.key_id
WHERE h.id IN (
    SELECT id FROM hold
    WHERE ended_us IS NULL AND state IN ('pending', 'open') AND (state = 'pending' OR created_us >= :since)
    AND (CAST(:account AS BIGINT) IS NULL OR account_id = :account)
    AND (CAST(:key AS BIGINT) IS NULL OR key_id = :key)
    AND (CAST(:model AS TEXT) IS NULL OR model = :model OR served_model = :model)
    ORDER BY id DESC LIMIT :most
)
ORDER BY h.id DESC;

-- count_ended --
-- How many orders ended since a moment, as far as that: by the two indexes of what ends orders. Of what was not charged
-- for, the ids say what ended an order.
SELECT count(*) FROM (
    SELECT t.id
    FROM transfer t
    WHERE t.debit_account_id IN (
        SELECT id FROM account WHERE id > 1 AND (CAST(:account AS BIGINT) IS NULL OR id = :account)
    ) AND t.cost IS NOT NULL AND t.created_us >= :since
    UNION ALL
    SELECT t.id
    FROM transfer t
    WHERE t.debit_account_id IN (
        SELECT id FROM account WHERE id > 1 AND (CAST(:account AS BIGINT) IS NULL OR id = :account)
    ) AND t.cost IS NULL AND t.kind <> 'hold' AND t.created_us >= :since AND substr(t.id, length(t.id) - 3) = '-end'
    LIMIT :most
) AS ends;

-- ended_each_minute --
-- Orders that ended in each minute since a moment: those that were charged for, and the others; so many are looked at.
-- By the same indexes.
SELECT created_us / 60000000, CAST(sum(is_fare) AS BIGINT), CAST(sum(1 - is_fare) AS BIGINT) FROM (
    SELECT t.created_us, 1 AS is_fare
    FROM transfer t
    WHERE t.debit_account_id IN (
        SELECT id FROM account WHERE id > 1 AND (CAST(:account AS BIGINT) IS NULL OR id = :account)
    ) AND t.cost IS NOT NULL AND t.created_us >= :since
    UNION ALL
    SELECT t.created_us, 0 AS is_fare
    FROM transfer t
    WHERE t.debit_account_id IN (
        SELECT id FROM account WHERE id > 1 AND (CAST(:account AS BIGINT) IS NULL OR id = :account)
    ) AND t.cost IS NULL AND t.kind <> 'hold' AND t.created_us >= :since AND substr(t.id, length(t.id) - 3) = '-end'
    LIMIT :most
) AS ends
GROUP BY 1 ORDER BY 1;

-- live_ended --
-- The orders that ended last, since a moment: `most` are looked at, and of these so many are found.
SELECT h.id, h.account_id, a.name, h.key_id, CASE WHEN k.label <> '' THEN k.label ELSE k.hint END,
    coalesce(h.served_model, h.model), h.state, h.streamed, h.created_us, h.ended_us, h.prompt_tokens, h.answer_tokens,
    h.amount_nanos, e.cost, CASE WHEN e.cost IS NULL THEN NULL ELSE e.amount_nanos END
FROM transfer e JOIN hold h ON h.id = e.hold_id JOIN account a ON a.id = h.account_id JOIN api_key k ON k.id = h.key_id
WHERE e.id IN (
    SELECT id FROM (
        SELECT t.id, t.created_us
        FROM transfer t
        WHERE t.debit_account_id IN (
            SELECT id FROM account WHERE id > 1 AND (CAST(:account AS BIGINT) IS NULL OR id = :account)
        ) AND t.cost IS NOT NULL AND t.created_us >= :since
        UNION ALL
        SELECT t.id, t.created_us
        FROM transfer t
        WHERE t.debit_account_id IN (
            SELECT id FROM account WHERE id > 1 AND (CAST(:account AS BIGINT) IS NULL OR id = :account)
        ) AND t.cost IS NULL AND t.kind <> 'hold' AND t.created_us >= :since
        AND substr(t.id, length(t.id) - 3) = '-end'
        ORDER BY 2 DESC, 1 DESC LIMIT :most
    ) AS latest
)
AND (CAST(:key AS BIGINT) IS NULL OR h.key_id = :key)
AND (CAST(:model AS TEXT) IS NULL OR h.model = :model OR h.served_model = :model)
ORDER BY e.created_us DESC, e.id DESC LIMIT :shown;


-- Runs, and what they leave.

-- insert_run (row) --
INSERT INTO run (
    id, account_id, key_id, worker, status, status_message, origin, input, timeout_seconds, memory_mbytes, limit_nanos,
    dataset_id, store_id, queue_id, started_us, finished_us, exit_code
) VALUES (
    :id, :account_id, :key_id, :worker, :status, :status_message, :origin, :input, :timeout_seconds, :memory_mbytes,
    :limit_nanos, :dataset_id, :store_id, :queue_id, :started_us, :finished_us, :exit_code
);

-- run_named --
-- By its id, which is its queue's, too, or its dataset's or store's: each by an index of its own, not by the account's.
SELECT id, account_id, key_id, worker, status, status_message, origin, input, timeout_seconds, memory_mbytes,
    limit_nanos, dataset_id, store_id, queue_id, started_us, finished_us, exit_code
FROM run WHERE +account_id = :account AND id IN (
    SELECT id FROM run WHERE id = :id
    UNION ALL SELECT id FROM run WHERE dataset_id = :id
    UNION ALL SELECT id FROM run WHERE store_id = :id
);

-- run_input --
SELECT coalesce((SELECT body FROM run_record r WHERE r.store_id = run.store_id AND r.key = ''), input)
FROM run WHERE id = :id;

-- change_run --
UPDATE run SET status = :status, status_message = :message, finished_us = :finished, exit_code = :exit_code
WHERE id = :id AND finished_us IS NULL;

-- tell_run --
UPDATE run SET status_message = :message WHERE id = :id;

-- live_run_workers --
SELECT DISTINCT worker FROM run WHERE finished_us IS NULL;

-- lock_run --
-- By its id or its dataset's, as `lock_account`: what is counted then is added to by nobody else.
UPDATE run SET status = status WHERE id = :named OR dataset_id = :named;

-- note_bill (row) --
INSERT INTO run_charge (hold_id, run_id, idempotency_key, event, created_us)
VALUES (:hold_id, :run_id, :idempotency_key, :event, :created_us);

-- bill_noted --
SELECT hold_id FROM run_charge
WHERE run_id = :run AND idempotency_key = :key AND created_us > :since ORDER BY created_us DESC LIMIT 1;

-- billed_events --
-- The events of the fare are more than were billed where a plan multiplies the cost before it is rounded.
SELECT c.event, t.cost, count(*)
FROM run_charge c JOIN transfer t ON t.id = c.hold_id || '-end'
WHERE c.run_id = :run AND t.cost IS NOT NULL GROUP BY c.event, t.cost;

-- push_item (row) --
INSERT INTO run_item (dataset_id, number, body) VALUES (:dataset_id, :number, :body) ON CONFLICT DO NOTHING;

-- last_item --
SELECT coalesce(max(number), 0) FROM run_item WHERE dataset_id = :dataset;

-- count_items --
SELECT count(*) FROM run_item WHERE dataset_id = :dataset;

-- items_forward --
SELECT body FROM run_item WHERE dataset_id = :dataset ORDER BY number ASC LIMIT :limit OFFSET :offset;

-- items_backward --
SELECT body FROM run_item WHERE dataset_id = :dataset ORDER BY number DESC LIMIT :limit OFFSET :offset;

-- size_of_items_forward --
SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM (
    SELECT length(body) AS size FROM run_item WHERE dataset_id = :dataset
    ORDER BY number ASC LIMIT :limit OFFSET :offset
) AS sizes;

-- size_of_items_backward --
SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM (
    SELECT length(body) AS size FROM run_item WHERE dataset_id = :dataset
    ORDER BY number DESC LIMIT :limit OFFSET :offset
) AS sizes;

-- put_record (row) --
INSERT INTO run_record (store_id, key, content_type, body) VALUES (:store_id, :key, :content_type, :body)
ON CONFLICT (store_id, key) DO UPDATE SET content_type = excluded.content_type, body = excluded.body;

-- record --
SELECT key, content_type, body FROM run_record WHERE store_id = :store AND key = :key;

-- records --
SELECT key, length(body) FROM run_record
WHERE store_id = :store AND key > :after AND substr(key, 1, length(:prefix)) = :prefix ORDER BY key LIMIT :most;

-- add_line --
INSERT INTO run_line (run_id, number, created_us, text)
SELECT :run, coalesce(max(number), 0) + 1, :now, :text FROM run_line WHERE run_id = :run;

-- lines --
SELECT number, created_us, text FROM run_line WHERE run_id = :run AND number > :after ORDER BY number LIMIT :most;

-- runs_to_forget --
SELECT id, dataset_id, store_id FROM run WHERE finished_us < :before LIMIT 100;

-- forget_items --
DELETE FROM run_item WHERE dataset_id = :dataset;

-- forget_records --
DELETE FROM run_record WHERE store_id = :store;

-- forget_lines --
DELETE FROM run_line WHERE run_id = :run;

-- forget_charges --
DELETE FROM run_charge WHERE run_id = :run;

-- forget_run --
DELETE FROM run WHERE id = :run;

-- The trail: who changed what. Nothing here changes or deletes an entry, and triggers refuse it.

-- count_entries (row) --
-- Locks the one row until the transaction ends, so that numbers have no gaps, and is a transaction's last lock.
UPDATE trail_head SET entries = entries + :more;

-- insert_entry (row) --
INSERT INTO trail (
    id, at_us, way, who, by_manager_id, by_key_id, session, what, account_id, key_id, hold_id, transfer_id, about,
    members, reason
) VALUES (
    (SELECT entries - :later FROM trail_head), :at_us, :way, :who, :by_manager_id, :by_key_id, :session, :what,
    :account_id, :key_id, :hold_id, :transfer_id, :about, :members, :reason
);

-- trail_head --
SELECT entries, whole_from_us FROM trail_head;

-- all_entries --
SELECT id, at_us, way, who, by_manager_id, by_key_id, session, what, account_id, key_id, hold_id, transfer_id, about,
    members, reason
FROM trail ORDER BY id;

-- entries --
SELECT t.id, t.at_us, t.way, t.who, t.by_manager_id, t.by_key_id, t.session, t.what, t.account_id, t.key_id, t.hold_id,
    t.transfer_id, t.about, t.members, t.reason, a.name, k.label, k.hint, k.digest, m.account_id
FROM trail t
LEFT JOIN account a ON a.id = t.account_id
LEFT JOIN api_key k ON k.id = t.key_id
LEFT JOIN management_key m ON m.id = t.by_manager_id
WHERE t.id < :before AND t.at_us >= :since AND t.at_us < :until
AND (CAST(:account AS BIGINT) IS NULL OR t.account_id = :account) AND (CAST(:key AS BIGINT) IS NULL OR t.key_id = :key)
AND (CAST(:who AS TEXT) IS NULL OR lower(t.who) LIKE :who ESCAPE '!')
AND (CAST(:what AS TEXT) IS NULL OR t.what || '.' LIKE :what ESCAPE '!')
ORDER BY t.id DESC LIMIT :most;

-- entries_of_account --
-- As `entries`, by the account's index. A manager of one account finds nobody by a name that it is not told.
SELECT t.id, t.at_us, t.way, t.who, t.by_manager_id, t.by_key_id, t.session, t.what, t.account_id, t.key_id, t.hold_id,
    t.transfer_id, t.about, t.members, t.reason, a.name, k.label, k.hint, k.digest, m.account_id
FROM trail t
LEFT JOIN account a ON a.id = t.account_id
LEFT JOIN api_key k ON k.id = t.key_id
LEFT JOIN management_key m ON m.id = t.by_manager_id
WHERE t.account_id = :account AND t.id < :before AND t.at_us >= :since AND t.at_us < :until
AND (CAST(:key AS BIGINT) IS NULL OR t.key_id = :key)
AND (CAST(:who AS TEXT) IS NULL OR lower(
    CASE WHEN CAST(:for_one AS BOOLEAN) AND t.by_key_id IS NULL AND (m.account_id IS NULL OR m.account_id <> :account)
    THEN CAST(:operator AS TEXT) ELSE t.who END
) LIKE :who ESCAPE '!')
AND (CAST(:what AS TEXT) IS NULL OR t.what || '.' LIKE :what ESCAPE '!')
ORDER BY t.id DESC LIMIT :most;

-- lock_account (row) --
-- Changes nothing; whoever else changes it waits.
UPDATE account SET plan = plan WHERE id = :id;

-- account_of_id --
SELECT a.id, a.name, a.plan, a.created_us, a.closed_us, al.limits
FROM account a LEFT JOIN allowance al ON al.owner = 'account ' || a.id
WHERE a.id = :id;

-- lock_key (row) --
-- As `lock_account`.
UPDATE api_key SET label = label WHERE id = :id;
