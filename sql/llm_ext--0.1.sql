/* sql/llm_ext--0.1.sql */

-- complain if the script is sourced in psql rather than CREATE EXTENSION
\echo Use "CREATE EXTENSION llm_ext" to load this file. \quit

-- Tables and views live in schema llm, functions in the extension's schema.
CREATE SCHEMA llm;
GRANT USAGE ON SCHEMA llm TO PUBLIC;

-- ---------------------------------------------------------------- rights

CREATE TABLE llm.model_grants (
	model text NOT NULL,
	grantee regrole NOT NULL,	-- 0 = PUBLIC
	PRIMARY KEY (model, grantee)
);
COMMENT ON TABLE llm.model_grants IS
	'which roles may use which model; see llm_grant_model and llm_revoke_model';
-- grants to roles that were dropped stay behind; elsewhere their numbers may be
-- those of other roles
SELECT pg_catalog.pg_extension_config_dump('llm.model_grants',
	'WHERE grantee = 0 OR grantee IN (SELECT oid FROM pg_catalog.pg_roles)');

CREATE FUNCTION llm_grant_model(model text, grantee text)
RETURNS void
LANGUAGE sql
BEGIN ATOMIC
	INSERT INTO llm.model_grants AS g (model, grantee)
	VALUES (llm_grant_model.model,
			CASE WHEN lower(llm_grant_model.grantee) = 'public' THEN 0::oid::regrole
				 ELSE quote_ident(llm_grant_model.grantee)::regrole END)
	ON CONFLICT DO NOTHING;
END;
REVOKE ALL ON FUNCTION llm_grant_model(text, text) FROM PUBLIC;
COMMENT ON FUNCTION llm_grant_model(text, text) IS
	'let a role (or public) use a model';

CREATE FUNCTION llm_revoke_model(model text, grantee text)
RETURNS void
LANGUAGE sql
BEGIN ATOMIC
	DELETE FROM llm.model_grants g
	WHERE g.model = llm_revoke_model.model
	  AND g.grantee = CASE WHEN lower(llm_revoke_model.grantee) = 'public' THEN 0::oid::regrole
						   ELSE quote_ident(llm_revoke_model.grantee)::regrole END;
END;
REVOKE ALL ON FUNCTION llm_revoke_model(text, text) FROM PUBLIC;
COMMENT ON FUNCTION llm_revoke_model(text, text) IS
	'take back what llm_grant_model gave';

-- ------------------------------------------------------------------ chat

CREATE FUNCTION llm_chat(messages jsonb, adapter text DEFAULT NULL,
						 options jsonb DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION llm_chat(jsonb, text, jsonb) IS
	'answer a conversation: an array of messages {"role", "content"}, or a whole OpenAI request object';

CREATE FUNCTION llm_ask(question text, adapter text DEFAULT NULL,
						options jsonb DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION llm_ask(text, text, jsonb) IS
	'answer one question (a conversation of one user message)';

CREATE FUNCTION llm_generate(prompt text, adapter text DEFAULT NULL,
							 options jsonb DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION llm_generate(text, text, jsonb) IS
	'continue a raw prompt, without a chat template';

CREATE FUNCTION llm_chat_stream(messages jsonb, adapter text DEFAULT NULL,
								options jsonb DEFAULT NULL)
RETURNS SETOF text
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 100000 ROWS 100;
COMMENT ON FUNCTION llm_chat_stream(jsonb, text, jsonb) IS
	'answer a conversation piece by piece: SELECT llm_chat_stream(...) returns rows as tokens arrive';

CREATE FUNCTION llm_completion(request json)
RETURNS jsonb
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION llm_completion(json) IS
	'answer an OpenAI request ("messages" or "prompt") with an OpenAI response: choices, usage, logprobs';

-- ----------------------------------------------------------------- typed

CREATE FUNCTION llm_classify(input text, labels text[], adapter text DEFAULT NULL,
							 options jsonb DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION llm_classify(text, text[], text, jsonb) IS
	'the label, of those given, that fits a text best';

CREATE FUNCTION llm_filter(condition text, input text, adapter text DEFAULT NULL,
						   options jsonb DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION llm_filter(text, text, text, jsonb) IS
	'does a condition, in words, hold for a text?  NULL and a warning where that could not be decided';

CREATE FUNCTION llm_score(criterion text, input text, adapter text DEFAULT NULL,
						  options jsonb DEFAULT NULL)
RETURNS double precision
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION llm_score(text, text, text, jsonb) IS
	'how sure the model is that a criterion, in words, holds for a text: from 0 (it does not) to 1 (it does)';

CREATE FUNCTION llm_extract(input text, schema jsonb, adapter text DEFAULT NULL,
							options jsonb DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION llm_extract(text, jsonb, text, jsonb) IS
	'data of a text as JSON of the given JSON schema';

CREATE FUNCTION llm_extract(input text, schema json, adapter text DEFAULT NULL,
							options jsonb DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION llm_extract(text, json, text, jsonb) IS
	'data of a text as JSON of the given JSON schema, whose order of members is kept';

-- for schemas that are written as a literal without a type
CREATE TYPE llm.json_schema;
CREATE FUNCTION llm.json_schema_in(cstring) RETURNS llm.json_schema
AS 'MODULE_PATHNAME', 'llm_json_schema_in'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION llm.json_schema_in(cstring) IS 'I/O';
CREATE FUNCTION llm.json_schema_out(llm.json_schema) RETURNS cstring
AS 'MODULE_PATHNAME', 'llm_json_schema_out'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION llm.json_schema_out(llm.json_schema) IS 'I/O';
CREATE TYPE llm.json_schema (INPUT = llm.json_schema_in, OUTPUT = llm.json_schema_out,
							 LIKE = json, CATEGORY = 'S');
COMMENT ON TYPE llm.json_schema IS 'what a JSON schema becomes that is written in quotes, without a type';

CREATE FUNCTION llm_extract(input text, schema llm.json_schema, adapter text DEFAULT NULL,
							options jsonb DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION llm_extract(text, llm.json_schema, text, jsonb) IS
	'data of a text as JSON of the given JSON schema, whose order of members is kept';

-- Only gathering is parallel; the leader asks the model.
CREATE FUNCTION llm.agg_transition(internal, text, text) RETURNS internal
AS 'MODULE_PATHNAME', 'llm_agg_transition'
LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION llm.agg_combine(internal, internal) RETURNS internal
AS 'MODULE_PATHNAME', 'llm_agg_combine'
LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION llm.agg_serialize(internal) RETURNS bytea
AS 'MODULE_PATHNAME', 'llm_agg_serialize'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION llm.agg_deserialize(bytea, internal) RETURNS internal
AS 'MODULE_PATHNAME', 'llm_agg_deserialize'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION llm.agg_final(internal) RETURNS text
AS 'MODULE_PATHNAME', 'llm_agg_final'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION llm.agg_transition(internal, text, text) IS 'part of llm_agg';
COMMENT ON FUNCTION llm.agg_combine(internal, internal) IS 'part of llm_agg';
COMMENT ON FUNCTION llm.agg_serialize(internal) IS 'part of llm_agg';
COMMENT ON FUNCTION llm.agg_deserialize(bytea, internal) IS 'part of llm_agg';
COMMENT ON FUNCTION llm.agg_final(internal) IS 'part of llm_agg';
CREATE AGGREGATE llm_agg(input text, instruction text) (
	SFUNC = llm.agg_transition, STYPE = internal, FINALFUNC = llm.agg_final,
	COMBINEFUNC = llm.agg_combine, SERIALFUNC = llm.agg_serialize,
	DESERIALFUNC = llm.agg_deserialize, PARALLEL = SAFE);
COMMENT ON AGGREGATE llm_agg(text, text) IS
	'one answer to an instruction about all texts of a group, however many they are';

-- unsafe: on_error = 'null' needs a subtransaction
CREATE FUNCTION llm_extract(input text, as_type anyelement, adapter text DEFAULT NULL,
							options jsonb DEFAULT NULL)
RETURNS anyelement
AS 'MODULE_PATHNAME', 'llm_extract_type'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000;
COMMENT ON FUNCTION llm_extract(text, anyelement, text, jsonb) IS
	'data of a text as a value of a type, as in llm_extract(body, NULL::my_type)';

-- -------------------------------------------------------- vectors, scores

CREATE FUNCTION llm_embed(input text, options jsonb DEFAULT NULL)
RETURNS real[]
AS 'MODULE_PATHNAME'
LANGUAGE C STABLE PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION llm_embed(text, jsonb) IS
	'a text as a vector: the model''s final hidden state of the last token; options: pooling (last, mean), normalize, dimensions, add_special_tokens, model';

CREATE FUNCTION llm_classify_probabilities(input text, labels text[],
										   adapter text DEFAULT NULL,
										   options jsonb DEFAULT NULL)
RETURNS double precision[]
AS 'MODULE_PATHNAME'
LANGUAGE C STABLE PARALLEL RESTRICTED COST 100000;
COMMENT ON FUNCTION llm_classify_probabilities(text, text[], text, jsonb) IS
	'how probable each label is as the answer, in the labels'' order; see llm_classify_scores';

CREATE FUNCTION llm_classify_scores(input text, labels text[],
									adapter text DEFAULT NULL,
									options jsonb DEFAULT NULL)
RETURNS TABLE (label text, probability double precision)
LANGUAGE sql STABLE PARALLEL RESTRICTED COST 100000 ROWS 5
BEGIN ATOMIC
	SELECT l, p
	FROM unnest(llm_classify_scores.labels,
				llm_classify_probabilities(llm_classify_scores.input,
										   llm_classify_scores.labels,
										   llm_classify_scores.adapter,
										   llm_classify_scores.options)) AS u (l, p)
	WHERE llm_classify_scores.input IS NOT NULL;
END;
COMMENT ON FUNCTION llm_classify_scores(text, text[], text, jsonb) IS
	'labels and how probable each is as the answer, from the log-probabilities of its tokens; options: length_normalization, score_end, model';

-- ------------------------------------------------------------------ text

CREATE FUNCTION llm_render(messages json, options jsonb DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME'
LANGUAGE C STABLE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION llm_render(json, jsonb) IS
	'the prompt that the chat template makes of messages';

CREATE FUNCTION llm_tokenize(input text, options jsonb DEFAULT NULL)
RETURNS integer[]
AS 'MODULE_PATHNAME'
LANGUAGE C STABLE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION llm_tokenize(text, jsonb) IS
	'token ids of a text; options: add_special_tokens (default true), model';

CREATE FUNCTION llm_detokenize(token_ids integer[], options jsonb DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME'
LANGUAGE C STABLE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION llm_detokenize(integer[], jsonb) IS
	'text of token ids; options: skip_special_tokens (default true), model';

CREATE FUNCTION llm_count_tokens(input text, options jsonb DEFAULT NULL)
RETURNS integer
AS 'MODULE_PATHNAME'
LANGUAGE C STABLE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION llm_count_tokens(text, jsonb) IS
	'number of tokens of a text; options: add_special_tokens (default true), model';

-- --------------------------------------------------------------- enrich

CREATE TABLE llm.enrich_jobs (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	relation regclass NOT NULL,
	column_name name NOT NULL,
	expression text NOT NULL,
	condition text,
	usename name NOT NULL DEFAULT current_user,
	pid integer NOT NULL,
	query_start timestamptz,	-- with pid, the CALL it runs in
	rows_estimated bigint NOT NULL,
	rows_done bigint NOT NULL DEFAULT 0,
	rows_failed bigint NOT NULL DEFAULT 0,
	started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	finished_at timestamptz
);
COMMENT ON TABLE llm.enrich_jobs IS 'calls of llm_enrich; see the view llm.enrich_progress';

CREATE TABLE llm.enrich_failures (
	relation regclass,
	column_name name,
	usename name DEFAULT current_user,
	key jsonb,		-- the row's primary key, an array of its columns
	job bigint NOT NULL,
	sqlstate text NOT NULL,
	reason text NOT NULL,
	failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (relation, column_name, usename, key)
);
COMMENT ON TABLE llm.enrich_failures IS
	'rows that llm_enrich could not do, and why; it passes them by until they are deleted here, or retry_failed is given';

-- each role has its own
GRANT SELECT, INSERT, UPDATE, DELETE ON llm.enrich_jobs, llm.enrich_failures TO PUBLIC;
ALTER TABLE llm.enrich_jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE llm.enrich_failures ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON llm.enrich_jobs USING (usename = current_user);
CREATE POLICY own ON llm.enrich_failures USING (usename = current_user);
SELECT pg_catalog.pg_extension_config_dump('llm.enrich_failures', '');

CREATE VIEW llm.enrich_progress WITH (security_invoker = true) AS
	SELECT j.id, j.relation, j.column_name, j.usename,
		   CASE WHEN j.finished_at IS NOT NULL THEN 'finished'
				WHEN EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
							 WHERE a.pid = j.pid AND a.query_start = j.query_start
							   AND a.state = 'active') THEN 'running'
				ELSE 'stopped' END AS state,
		   j.rows_estimated, j.rows_done, j.rows_failed, j.started_at, j.updated_at,
		   j.finished_at, j.pid
	FROM llm.enrich_jobs j;
GRANT SELECT ON llm.enrich_progress TO PUBLIC;
COMMENT ON VIEW llm.enrich_progress IS
	'how far calls of llm_enrich have come: running, finished, or stopped by an error or a cancel';

-- The parts of llm_enrich run as who calls it.  Names that are written into
-- statements are quoted; expression and condition are the caller's own SQL.

CREATE FUNCTION llm.enrich_table(target regclass) RETURNS text
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT format('%I.%I', n.nspname, c.relname)
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.oid = enrich_table.target;
END;
COMMENT ON FUNCTION llm.enrich_table(regclass) IS 'part of llm_enrich: a table''s name, quoted';

CREATE FUNCTION llm.enrich_key(target regclass) RETURNS text
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT format('jsonb_build_array(%s)',
				  string_agg(format('%I.%I', c.relname, a.attname), ', ' ORDER BY k.position))
	FROM pg_index i
	JOIN pg_class c ON c.oid = i.indrelid,
		 unnest(i.indkey) WITH ORDINALITY k (attnum, position)
	JOIN pg_attribute a ON a.attnum = k.attnum
	WHERE i.indrelid = enrich_key.target AND i.indisprimary
	  AND a.attrelid = enrich_key.target
	GROUP BY c.relname;
END;
COMMENT ON FUNCTION llm.enrich_key(regclass) IS 'part of llm_enrich: an expression for a row''s primary key';

-- what is left to do, with the key of each row
CREATE FUNCTION llm.enrich_from(job llm.enrich_jobs) RETURNS text
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT format(E'%1$s CROSS JOIN LATERAL (SELECT %2$s) AS llm_row (llm_key)\n'
				  'WHERE %3$I.%4$I IS NULL AND (%5$s\n) AND NOT EXISTS (SELECT FROM llm.enrich_failures f\n'
				  'WHERE f.relation = %6$s AND f.column_name = %7$L AND f.usename = current_user\n'
				  'AND f.key = llm_row.llm_key)',
				  llm.enrich_table(job.relation), llm.enrich_key(job.relation), c.relname,
				  job.column_name, coalesce(job.condition, 'true'), job.relation::oid, job.column_name)
	FROM pg_class c
	WHERE c.oid = job.relation;
END;
COMMENT ON FUNCTION llm.enrich_from(llm.enrich_jobs) IS 'part of llm_enrich: which rows are left';

-- Computes first, then writes what is not null: rows that fail stay as they
-- are.  The rows are named by table and position, which are theirs as long as
-- they are locked.
CREATE FUNCTION llm.enrich_update(job llm.enrich_jobs) RETURNS text
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT format(E'WITH llm_done AS (UPDATE %1$s SET %2$I = llm_new.llm_value\n'
				  'FROM (SELECT %3$I.tableoid AS llm_table, %3$I.ctid AS llm_place, (%4$s\n) AS llm_value\n'
				  'FROM %1$s JOIN unnest($1, $2) AS llm_picked (llm_t, llm_p)\n'
				  'ON %3$I.tableoid = llm_t AND %3$I.ctid = llm_p OFFSET 0) AS llm_new\n'
				  'WHERE %3$I.tableoid = llm_table AND %3$I.ctid = llm_place AND llm_value IS NOT NULL\n'
				  'RETURNING llm_table, llm_place)\n'
				  'SELECT array_agg(llm_table), array_agg(llm_place) FROM llm_done',
				  llm.enrich_table(job.relation), job.column_name, c.relname, job.expression)
	FROM pg_class c
	WHERE c.oid = job.relation;
END;
COMMENT ON FUNCTION llm.enrich_update(llm.enrich_jobs) IS 'part of llm_enrich: the statement that does rows';

-- an error of the row: its data, its length, its constraints, its own timeout,
-- or what a user's function raised; others end the job
CREATE FUNCTION llm.enrich_is_row_error(code text) RETURNS boolean
LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT left(code, 2) IN ('0A', '21', '22', '23', '38', '44', '54', 'P0') OR code = '57000';
END;
COMMENT ON FUNCTION llm.enrich_is_row_error(text) IS 'part of llm_enrich: does an error belong to a row?';

-- Do rows at once; where one of them fails the statement, each half by itself.
-- Returns those that are done.
CREATE FUNCTION llm.enrich_rows(statement text, INOUT tables oid[], INOUT places tid[])
LANGUAGE plpgsql
AS $$
DECLARE
	n integer := cardinality(tables);
	low_tables oid[];
	low_places tid[];
	high_tables oid[];
	high_places tid[];
BEGIN
	BEGIN
		EXECUTE statement INTO low_tables, low_places USING tables, places;
		tables := low_tables;
		places := low_places;
		RETURN;
	EXCEPTION WHEN OTHERS THEN
		IF NOT llm.enrich_is_row_error(SQLSTATE) THEN
			RAISE;
		END IF;
	END;
	IF n > 1 THEN
		SELECT r.tables, r.places INTO low_tables, low_places
		FROM llm.enrich_rows(statement, tables[:n / 2], places[:n / 2]) r;
		SELECT r.tables, r.places INTO high_tables, high_places
		FROM llm.enrich_rows(statement, tables[n / 2 + 1:], places[n / 2 + 1:]) r;
	END IF;
	tables := low_tables || high_tables;
	places := low_places || high_places;
END;
$$;
COMMENT ON FUNCTION llm.enrich_rows(text, oid[], tid[]) IS 'part of llm_enrich: do rows, as many at once as go';

-- Do one row, or say why not.
CREATE FUNCTION llm.enrich_row(statement text, target oid, place tid,
							   OUT code text, OUT reason text)
LANGUAGE plpgsql
AS $$
DECLARE
	done oid[];
	places tid[];
BEGIN
	EXECUTE statement INTO done, places USING ARRAY[target], ARRAY[place];
	IF done IS NULL THEN
		code := '22004';
		reason := 'no value: the expression is null, or a trigger or policy kept the row from being updated';
	END IF;
EXCEPTION WHEN OTHERS THEN
	IF NOT llm.enrich_is_row_error(SQLSTATE) THEN
		RAISE;
	END IF;
	code := SQLSTATE;
	reason := SQLERRM;
END;
$$;
COMMENT ON FUNCTION llm.enrich_row(text, oid, tid) IS 'part of llm_enrich: do one row, or say why not';

CREATE FUNCTION llm.enrich_begin(target regclass, target_column name, expression text,
								 condition text, retry_failed boolean)
RETURNS llm.enrich_jobs
LANGUAGE plpgsql
AS $$
DECLARE
	job llm.enrich_jobs;
	plan json;
BEGIN
	IF llm.enrich_key(target) IS NULL THEN
		RAISE EXCEPTION 'table "%" has no primary key', target
			USING ERRCODE = 'object_not_in_prerequisite_state',
				  HINT = 'llm_enrich names rows that failed by their primary key.';
	END IF;
	IF retry_failed THEN
		DELETE FROM llm.enrich_failures f
		WHERE f.relation = target AND f.column_name = target_column AND f.usename = current_user;
	END IF;
	INSERT INTO llm.enrich_jobs (relation, column_name, expression, condition, pid, query_start, rows_estimated)
	VALUES (target, target_column, expression, condition, pg_backend_pid(),
			(SELECT a.query_start FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()), 0)
	RETURNING * INTO job;
	-- mistakes in names and types are found here
	EXECUTE 'EXPLAIN (FORMAT json) SELECT FROM ' || llm.enrich_from(job) INTO plan;
	EXECUTE 'EXPLAIN ' || llm.enrich_update(job) USING ARRAY[]::oid[], ARRAY[]::tid[];
	UPDATE llm.enrich_jobs j SET rows_estimated = (plan->0->'Plan'->>'Plan Rows')::float8
	WHERE j.id = job.id;
	RETURN job;
END;
$$;
COMMENT ON FUNCTION llm.enrich_begin(regclass, name, text, text, boolean) IS 'part of llm_enrich: a new job';

-- Lock the next rows.  Another job may have failed with some of them until
-- they were locked: that is looked at again, with a snapshot taken later.
CREATE FUNCTION llm.enrich_pick(job llm.enrich_jobs, n_rows integer,
								OUT tables oid[], OUT places tid[], OUT keys jsonb[])
LANGUAGE plpgsql
AS $$
BEGIN
	EXECUTE format(E'SELECT array_agg(t), array_agg(p), array_agg(k) FROM (\n'
				   'SELECT %1$I.tableoid, %1$I.ctid, llm_row.llm_key FROM %2$s\n'
				   'LIMIT %3$s FOR UPDATE OF %1$I SKIP LOCKED) AS picked (t, p, k)',
				   (SELECT c.relname FROM pg_class c WHERE c.oid = job.relation),
				   llm.enrich_from(job), n_rows)
	INTO tables, places, keys;
	SELECT array_agg(u.t), array_agg(u.p), array_agg(u.k) INTO tables, places, keys
	FROM unnest(tables, places, keys) u (t, p, k)
	WHERE NOT EXISTS (SELECT FROM llm.enrich_failures f
					  WHERE f.relation = job.relation AND f.column_name = job.column_name
						AND f.usename = current_user AND f.key = u.k);
END;
$$;
COMMENT ON FUNCTION llm.enrich_pick(llm.enrich_jobs, integer) IS 'part of llm_enrich: lock the next rows';

-- Do the next rows; false where none is left.
CREATE FUNCTION llm.enrich_chunk(job llm.enrich_jobs, n_rows integer)
RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
	statement text := llm.enrich_update(job);
	picked record;
	done record;
	bad record;
	result record;
	n_failed bigint := 0;
BEGIN
	SELECT * INTO picked FROM llm.enrich_pick(job, n_rows);
	IF picked.tables IS NULL THEN
		RETURN false;
	END IF;
	-- a failed row is null at first, and tells its reason when it is tried alone
	PERFORM set_config('llm_ext.on_error', 'null', true),
			set_config('client_min_messages', 'error', true);
	SELECT * INTO done FROM llm.enrich_rows(statement, picked.tables, picked.places);
	PERFORM set_config('llm_ext.on_error', 'error', true);
	FOR bad IN
		SELECT p.t, p.c, p.k FROM unnest(picked.tables, picked.places, picked.keys) p (t, c, k)
		WHERE NOT EXISTS (SELECT FROM unnest(done.tables, done.places) d (t, c)
						  WHERE d.t = p.t AND d.c = p.c)
	LOOP
		SELECT * INTO result FROM llm.enrich_row(statement, bad.t, bad.c);
		CONTINUE WHEN result.code IS NULL;
		n_failed := n_failed + 1;
		INSERT INTO llm.enrich_failures (relation, column_name, key, job, sqlstate, reason)
		VALUES (job.relation, job.column_name, bad.k, job.id, result.code, result.reason);
	END LOOP;
	UPDATE llm.enrich_jobs j
	SET rows_done = j.rows_done + cardinality(picked.tables) - n_failed,
		rows_failed = j.rows_failed + n_failed, updated_at = clock_timestamp()
	WHERE j.id = job.id;
	RETURN true;
END;
$$;
COMMENT ON FUNCTION llm.enrich_chunk(llm.enrich_jobs, integer) IS 'part of llm_enrich: the next rows';

CREATE PROCEDURE llm_enrich(target regclass, target_column name, expression text,
							condition text DEFAULT NULL, rows_per_commit integer DEFAULT 1000,
							retry_failed boolean DEFAULT false)
LANGUAGE plpgsql
AS $$
DECLARE
	job llm.enrich_jobs;
BEGIN
	IF rows_per_commit IS NULL OR rows_per_commit < 1 THEN
		RAISE EXCEPTION 'rows_per_commit must be at least 1'
			USING ERRCODE = 'invalid_parameter_value';
	END IF;
	job := llm.enrich_begin(target, target_column, expression, condition, retry_failed);
	COMMIT;
	WHILE llm.enrich_chunk(job, rows_per_commit) LOOP
		COMMIT;
	END LOOP;
	UPDATE llm.enrich_jobs j SET finished_at = clock_timestamp() WHERE j.id = job.id;
	COMMIT;
END;
$$;
COMMENT ON PROCEDURE llm_enrich(regclass, name, text, text, integer, boolean) IS
	'fill a column that is null with an expression, in committed chunks: goes on where it stopped, keeps rows that failed in llm.enrich_failures';

-- ---------------------------------------------------------------- models

CREATE FUNCTION llm_load_model(path text, name text DEFAULT NULL,
							   options jsonb DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION llm_load_model(text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION llm_load_model(text, text, jsonb) IS
	'load a Hugging Face model directory, or a GGUF file, of the server and serve it under a name; replaces the model of that name once the new one is ready';

CREATE FUNCTION llm_unload_model(name text)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION llm_unload_model(text) FROM PUBLIC;
COMMENT ON FUNCTION llm_unload_model(text) IS
	'stop serving a model; requests in flight finish first';

CREATE FUNCTION llm_default_model(name text)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION llm_default_model(text) FROM PUBLIC;
COMMENT ON FUNCTION llm_default_model(text) IS
	'choose the model that calls without the option "model" use';

CREATE FUNCTION llm_inspect_model(path text)
RETURNS jsonb
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
REVOKE ALL ON FUNCTION llm_inspect_model(text) FROM PUBLIC;
COMMENT ON FUNCTION llm_inspect_model(text) IS
	'describe a model directory or GGUF file without loading it: architecture, license, context, template, parameters, bytes, and what is not supported';

-- -------------------------------------------------------------- adapters

CREATE TABLE llm.adapter_names (
	name text PRIMARY KEY,
	owner regrole NOT NULL,
	active integer,
	split_version integer,
	split_percent integer CHECK (split_percent BETWEEN 1 AND 100),
	next_version integer NOT NULL DEFAULT 1,
	history integer[] NOT NULL DEFAULT '{}',	-- active before, the latest last
	description text,
	created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE llm.adapter_names IS
	'adapters: who owns each, and which version its name means';

CREATE TABLE llm.adapter_versions (
	adapter text NOT NULL REFERENCES llm.adapter_names ON DELETE CASCADE,
	version integer NOT NULL,
	digest bytea NOT NULL,			-- sha256 of the image
	n_bytes bigint NOT NULL,		-- of the image
	base bytea NOT NULL,			-- fingerprint of the base model
	template_hash bytea NOT NULL,
	tokenizer_hash bytea NOT NULL,
	header bytea NOT NULL,			-- the image up to the tensors' data
	model text NOT NULL,			-- that it was registered for
	config json NOT NULL,			-- PEFT's
	rank integer NOT NULL,			-- the largest
	n_modules integer NOT NULL,
	is_dora boolean NOT NULL,
	origin text NOT NULL,
	created_by regrole NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (adapter, version)
);
COMMENT ON TABLE llm.adapter_versions IS
	'versions of adapters; they never change';

CREATE TABLE llm.adapter_tensors (
	adapter text NOT NULL,
	version integer NOT NULL,
	position integer NOT NULL,		-- in the image
	name text NOT NULL,
	dtype text NOT NULL,
	shape bigint[] NOT NULL,
	data bytea NOT NULL,
	PRIMARY KEY (adapter, version, position),
	FOREIGN KEY (adapter, version) REFERENCES llm.adapter_versions ON DELETE CASCADE
);
ALTER TABLE llm.adapter_tensors ALTER data SET STORAGE EXTERNAL;
COMMENT ON TABLE llm.adapter_tensors IS
	'the matrices of adapters, bit by bit as they were registered';

CREATE TABLE llm.adapter_grants (
	adapter text NOT NULL REFERENCES llm.adapter_names ON DELETE CASCADE,
	grantee regrole NOT NULL,		-- 0 = PUBLIC
	PRIMARY KEY (adapter, grantee)
);
COMMENT ON TABLE llm.adapter_grants IS
	'which roles may use which adapter; see llm_grant_adapter and llm_revoke_adapter';

CREATE TABLE llm.adapter_routes (
	tenant text PRIMARY KEY,
	adapter text NOT NULL
);
COMMENT ON TABLE llm.adapter_routes IS
	'which adapter calls of a tenant use; see llm_set_route';

SELECT pg_catalog.pg_extension_config_dump('llm.adapter_names', '');
SELECT pg_catalog.pg_extension_config_dump('llm.adapter_versions', '');
SELECT pg_catalog.pg_extension_config_dump('llm.adapter_tensors', '');
SELECT pg_catalog.pg_extension_config_dump('llm.adapter_grants',
	'WHERE grantee = 0 OR grantee IN (SELECT oid FROM pg_catalog.pg_roles)');
SELECT pg_catalog.pg_extension_config_dump('llm.adapter_routes', '');

CREATE FUNCTION llm_register_adapter(name text, path text, options jsonb DEFAULT NULL)
RETURNS integer
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION llm_register_adapter(text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION llm_register_adapter(text, text, jsonb) IS
	'register a PEFT directory of the server as a new version of an adapter, which is returned; options: model, activate (default true), description';

CREATE FUNCTION llm_register_adapter(name text, config json, tensors bytea,
									 options jsonb DEFAULT NULL)
RETURNS integer
AS 'MODULE_PATHNAME', 'llm_register_adapter_bytes'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION llm_register_adapter(text, json, bytea, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION llm_register_adapter(text, json, bytea, jsonb) IS
	'the same from the contents of adapter_config.json and adapter_model.safetensors';

CREATE FUNCTION llm_activate_adapter(name text, version integer)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION llm_activate_adapter(text, integer) IS
	'let an adapter''s name mean this version; others see it after COMMIT';

CREATE FUNCTION llm_rollback_adapter(name text)
RETURNS integer
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION llm_rollback_adapter(text) IS
	'let an adapter''s name mean the version that was active before, which is returned';

CREATE FUNCTION llm_drop_adapter(name text, version integer DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION llm_drop_adapter(text, integer) IS
	'drop a version of an adapter, or all of it; requests in flight finish with it';

CREATE FUNCTION llm_split_adapter(name text, version integer, percent integer)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION llm_split_adapter(text, integer, integer) IS
	'give another version a share of the traffic of an adapter''s name, by a stable hash of user, tenant or prompt; 0 ends it';

CREATE FUNCTION llm_grant_adapter(name text, grantee text)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION llm_grant_adapter(text, text) IS
	'let a role (or public) use an adapter of one''s own';

CREATE FUNCTION llm_revoke_adapter(name text, grantee text)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION llm_revoke_adapter(text, text) IS
	'take back what llm_grant_adapter gave';

CREATE FUNCTION llm_set_route(tenant text, adapter text)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION llm_set_route(text, text) FROM PUBLIC;
COMMENT ON FUNCTION llm_set_route(text, text) IS
	'choose the adapter of calls that name none while llm_ext.tenant is this tenant; NULL ends it';

CREATE FUNCTION llm_export_adapter(name text, path text, profile text DEFAULT 'peft')
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION llm_export_adapter(text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION llm_export_adapter(text, text, text) IS
	'write an adapter to a directory of the server as PEFT reads it; profile vllm: one rank and one alpha for all modules';

CREATE FUNCTION llm_merge_adapter(name text, path text, options jsonb DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION llm_merge_adapter(text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION llm_merge_adapter(text, text, jsonb) IS
	'write a whole model with the adapter in its weights to a directory of the server; options: dtype, max_shard_bytes; reports by how much weights changed and were rounded';

CREATE FUNCTION llm_merge_drift(name text, model text,
	samples text[] DEFAULT ARRAY['Hello!', 'What can you do?', 'Write a short sentence.'],
	OUT sample text, OUT same_token boolean, OUT max_difference float8)
RETURNS SETOF record
LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT s.sample,
		   i.top #>> '{0,token}' = m.top #>> '{0,token}',
		   (SELECT max(abs((x.v ->> 'logprob')::float8 - (y.v ->> 'logprob')::float8))
			FROM jsonb_array_elements(i.top) AS x(v)
			JOIN jsonb_array_elements(m.top) AS y(v) ON x.v -> 'bytes' = y.v -> 'bytes')
	FROM unnest(llm_merge_drift.samples) AS s(sample),
		 LATERAL (SELECT llm_completion(json_build_object(
					  'messages', json_build_array(json_build_object('role', 'user', 'content', s.sample)),
					  'adapter', llm_merge_drift.name, 'temperature', 0, 'max_tokens', 1,
					  'logprobs', true, 'top_logprobs', 20))
					  #> '{choices,0,logprobs,content,0,top_logprobs}') AS i(top),
		 LATERAL (SELECT llm_completion(json_build_object(
					  'messages', json_build_array(json_build_object('role', 'user', 'content', s.sample)),
					  'adapter', '', 'model', llm_merge_drift.model, 'temperature', 0, 'max_tokens', 1,
					  'logprobs', true, 'top_logprobs', 20))
					  #> '{choices,0,logprobs,content,0,top_logprobs}') AS m(top);
END;
COMMENT ON FUNCTION llm_merge_drift(text, text, text[]) IS
	'how far a merged model, once loaded, is from the adapter it was made of: log-probabilities of the first token after sample questions';

CREATE FUNCTION llm.adapter_facts(name text, OUT item text, OUT result text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'llm_adapter_facts'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 15;
COMMENT ON FUNCTION llm.adapter_facts(text) IS 'the first rows of llm_check_adapter';

CREATE FUNCTION llm_check_adapter(name text,
	samples text[] DEFAULT ARRAY['Hello!', 'What can you do?', 'Write a short sentence.'],
	OUT item text, OUT result text)
RETURNS SETOF record
LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT f.item, f.result FROM llm.adapter_facts(llm_check_adapter.name) f
	UNION ALL
	SELECT format('sample %s, %s', s.n, k.kind),
		   llm_ask(s.question, k.adapter, '{"temperature": 0, "max_tokens": 40}')
	FROM unnest(llm_check_adapter.samples) WITH ORDINALITY AS s(question, n),
		 (VALUES ('base', ''), ('adapter', llm_check_adapter.name)) AS k(kind, adapter);
END;
COMMENT ON FUNCTION llm_check_adapter(text, text[]) IS
	'what of an adapter matches the model, and how it answers sample questions beside the base model';

-- ------------------------------------------------------------------ evaluation

CREATE FUNCTION llm_evaluate_rows(adapter text, query text,
	options jsonb DEFAULT '{}',
	OUT row_number bigint, OUT key jsonb, OUT n_labels integer,
	OUT log_prob double precision, OUT rejected_log_prob double precision,
	OUT expected text, OUT answer text, OUT score double precision,
	OUT reason text)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000 ROWS 1000;
COMMENT ON FUNCTION llm_evaluate_rows(text, text, jsonb) IS
	'how probable an adapter (null: the base model) finds what each row of a query expects, and what it answers instead; options: those of datasets, score (none, exact_match, json_match, regex, sql), pattern, expression, generate, model';

CREATE FUNCTION llm_evaluate(adapter text, query text,
	options jsonb DEFAULT '{}',
	OUT n_rows bigint, OUT n_failed bigint, OUT n_labels bigint,
	OUT loss double precision, OUT perplexity double precision,
	OUT accuracy double precision, OUT score double precision,
	OUT n_scored bigint)
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 100000
BEGIN ATOMIC
	SELECT s.n_rows, s.n_failed, s.n_labels, s.loss, exp(s.loss), s.accuracy,
		   s.score, s.n_scored
	FROM (SELECT count(*) AS n_rows, count(r.reason) AS n_failed,
				 sum(r.n_labels) AS n_labels,
				 -sum(r.log_prob) / sum(r.n_labels) AS loss,
				 avg((r.log_prob > r.rejected_log_prob)::int)::double precision AS accuracy,
				 avg(r.score) AS score, count(r.score) AS n_scored
		  FROM llm_evaluate_rows(llm_evaluate.adapter, llm_evaluate.query,
								 llm_evaluate.options) r) s;
END;
COMMENT ON FUNCTION llm_evaluate(text, text, jsonb) IS
	'loss per label, perplexity, accuracy on pairs and mean score of an adapter (null: the base model) on a query''s rows; see llm_evaluate_rows';

CREATE FUNCTION llm_compare_adapters(a text, b text, query text,
	options jsonb DEFAULT '{}',
	OUT adapter text, OUT n_rows bigint, OUT n_failed bigint,
	OUT loss double precision, OUT perplexity double precision,
	OUT accuracy double precision, OUT score double precision,
	OUT n_better bigint)
RETURNS SETOF record
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 100000 ROWS 2
BEGIN ATOMIC
	WITH ra AS MATERIALIZED (
		SELECT r.* FROM llm_evaluate_rows(llm_compare_adapters.a,
			llm_compare_adapters.query, llm_compare_adapters.options) r),
	rb AS MATERIALIZED (
		SELECT r.* FROM llm_evaluate_rows(llm_compare_adapters.b,
			llm_compare_adapters.query, llm_compare_adapters.options) r),
	sides AS (
		SELECT 1 AS side, llm_compare_adapters.a AS adapter, x.*,
			   coalesce(x.score, x.log_prob - coalesce(x.rejected_log_prob, 0))
			   > coalesce(y.score, y.log_prob - coalesce(y.rejected_log_prob, 0)) AS is_better
		FROM ra x LEFT JOIN rb y USING (row_number)
		UNION ALL
		SELECT 2, llm_compare_adapters.b, x.*,
			   coalesce(x.score, x.log_prob - coalesce(x.rejected_log_prob, 0))
			   > coalesce(y.score, y.log_prob - coalesce(y.rejected_log_prob, 0))
		FROM rb x LEFT JOIN ra y USING (row_number)),
	sums AS (
		SELECT s.side, s.adapter, count(*) AS n_rows,
			   count(s.reason) AS n_failed,
			   -sum(s.log_prob) / sum(s.n_labels) AS loss,
			   avg((s.log_prob > s.rejected_log_prob)::int)::double precision AS accuracy,
			   avg(s.score) AS score,
			   count(*) FILTER (WHERE s.is_better) AS n_better
		FROM sides s GROUP BY s.side, s.adapter)
	SELECT u.adapter, u.n_rows, u.n_failed, u.loss, exp(u.loss), u.accuracy,
		   u.score, u.n_better
	FROM sums u ORDER BY u.side;
END;
COMMENT ON FUNCTION llm_compare_adapters(text, text, text, jsonb) IS
	'llm_evaluate of two adapters on the same rows, and on how many each is better: by score where one is asked for, else by log-probability';

CREATE FUNCTION llm.list_adapter_use(
	OUT digest bytea, OUT residency text, OUT resident_bytes bigint,
	OUT requests bigint, OUT tokens bigint, OUT last_used timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'llm_list_adapter_use'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 100;
COMMENT ON FUNCTION llm.list_adapter_use() IS 'what the view llm.adapters shows of use';

CREATE VIEW llm.adapters AS
	SELECT n.name, v.version, v.version = n.active AS is_active,
		   CASE WHEN n.split_version IS NULL THEN NULL
				WHEN v.version = n.split_version THEN n.split_percent
				WHEN v.version = n.active THEN 100 - n.split_percent
		   END AS traffic_percent,
		   v.model, pg_catalog.pg_get_userbyid(n.owner) AS owner,
		   v.rank, v.n_modules AS modules, v.is_dora, v.n_bytes AS bytes,
		   coalesce(u.residency, 'absent') AS residency,
		   coalesce(u.requests, 0) AS requests, coalesce(u.tokens, 0) AS tokens,
		   u.last_used, v.created_at,
		   CASE WHEN pg_catalog.pg_has_role(n.owner, 'USAGE') THEN v.origin END AS origin,
		   n.description
	FROM llm.adapter_names n
	JOIN llm.adapter_versions v ON v.adapter = n.name
	LEFT JOIN llm.list_adapter_use() u ON u.digest = v.digest;
GRANT SELECT ON llm.adapters TO PUBLIC;
COMMENT ON VIEW llm.adapters IS
	'versions of adapters: which is active, where it is resident, what it was used for; origins are shown to owners';

-- ----------------------------------------------------------- fine-tuning

CREATE TABLE llm.finetune_jobs (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	adapter text NOT NULL,
	query text NOT NULL,
	options jsonb NOT NULL,
	model text NOT NULL,
	base bytea NOT NULL,			-- fingerprint of the model
	role regrole NOT NULL,			-- as which it runs
	search_path text NOT NULL,		-- in which it was submitted
	continue_from integer,			-- version
	is_new boolean NOT NULL,		-- there was no adapter of that name
	state text NOT NULL DEFAULT 'queued'
		CHECK (state IN ('queued', 'reading', 'training', 'publishing',
						 'done', 'failed', 'cancelled', 'interrupted')),
	error text,
	attempts integer NOT NULL DEFAULT 0,	-- since the last checkpoint
	n_rows bigint,					-- to train on
	n_eval_rows bigint,
	n_skipped_rows bigint,
	template_hash bytea,			-- with which the dataset was made
	tokenizer_hash bytea,
	checkpoint_step bigint,
	version integer,				-- that was published
	trained_step bigint,			-- whose state the result is
	eval_loss double precision,		-- of the held-out rows then
	active_eval_loss double precision,	-- before: of the version then active
	submitted_at timestamptz NOT NULL DEFAULT now(),
	started_at timestamptz,
	finished_at timestamptz
);
COMMENT ON TABLE llm.finetune_jobs IS
	'fine-tuning jobs; see the view llm.finetune_progress';

CREATE TABLE llm.finetune_log (
	job bigint NOT NULL REFERENCES llm.finetune_jobs ON DELETE CASCADE,
	step bigint NOT NULL,
	n_steps bigint NOT NULL,
	epoch double precision,
	loss double precision,				-- mean since the row before
	learning_rate double precision,
	grad_norm double precision,
	n_tokens bigint NOT NULL,			-- since the row before
	n_labels bigint NOT NULL,
	accuracy double precision,			-- of preferences, as the next three
	chosen_reward double precision,
	rejected_reward double precision,
	reward_margin double precision,
	eval_loss double precision,
	eval_accuracy double precision,
	eval_chosen_reward double precision,
	eval_rejected_reward double precision,
	eval_reward_margin double precision,
	tokens_per_second double precision,
	memory_bytes bigint,				-- of the executor
	logged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (job, step)
);
COMMENT ON TABLE llm.finetune_log IS
	'steps of fine-tuning jobs, a row every logging_steps; one sees the jobs of one''s own roles';

CREATE TABLE llm.finetune_data (
	job bigint NOT NULL REFERENCES llm.finetune_jobs ON DELETE CASCADE,
	name text NOT NULL,					-- dataset, eval_dataset, state
	part integer NOT NULL,
	data bytea NOT NULL,
	PRIMARY KEY (job, name, part)
);
ALTER TABLE llm.finetune_data ALTER data SET STORAGE EXTERNAL;
COMMENT ON TABLE llm.finetune_data IS
	'what unfinished jobs go on from: the dataset as it was read, and the last checkpoint';

GRANT SELECT ON llm.finetune_jobs, llm.finetune_log TO PUBLIC;
ALTER TABLE llm.finetune_jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE llm.finetune_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON llm.finetune_jobs FOR SELECT
	USING (pg_has_role(role, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE'));
CREATE POLICY own ON llm.finetune_log FOR SELECT
	USING (EXISTS (SELECT FROM llm.finetune_jobs j WHERE j.id = job));
-- a restored job can be resumed, and then begins anew
SELECT pg_catalog.pg_extension_config_dump('llm.finetune_jobs', '');
SELECT pg_catalog.pg_extension_config_dump('llm.finetune_jobs_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('llm.finetune_log', '');

CREATE FUNCTION llm_finetune(adapter text, query text, options jsonb DEFAULT '{}')
RETURNS bigint
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION llm_finetune(text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION llm_finetune(text, text, jsonb) IS
	'train an adapter on the rows of a query, beside serving; begins after COMMIT; returns the job''s number; options have LLaMA-Factory''s names';

CREATE FUNCTION llm_finetune_wait(job bigint, timeout interval DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION llm_finetune_wait(bigint, interval) IS
	'wait for the end of a fine-tuning job; its state then, or when the time is up';

CREATE FUNCTION llm_finetune_cancel(job bigint)
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION llm_finetune_cancel(bigint) IS
	'end a fine-tuning job without a result; false where it had ended';

CREATE FUNCTION llm_finetune_resume(job bigint)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION llm_finetune_resume(bigint) IS
	'let a fine-tuning job that failed or was interrupted go on from its last checkpoint, after COMMIT';

CREATE FUNCTION llm.list_finetune_jobs(
	OUT job bigint, OUT worker_pid integer, OUT executor_pid integer,
	OUT step bigint, OUT n_steps bigint, OUT epoch double precision,
	OUT loss double precision, OUT learning_rate double precision,
	OUT grad_norm double precision, OUT tokens_per_second double precision,
	OUT seconds_left double precision, OUT memory_bytes bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'llm_list_finetune_jobs'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 5;
COMMENT ON FUNCTION llm.list_finetune_jobs() IS
	'what the view llm.finetune_progress shows of jobs that run or are about to';

CREATE VIEW llm.finetune_progress WITH (security_invoker = true) AS
	SELECT j.id AS job, j.adapter,
		   CASE WHEN r.job IS NULL AND j.state IN ('queued', 'reading', 'training', 'publishing')
				THEN 'interrupted' ELSE j.state END AS state,
		   coalesce(r.step, l.step) AS step, coalesce(r.n_steps, l.n_steps) AS n_steps,
		   coalesce(r.epoch, l.epoch) AS epoch, coalesce(r.loss, l.loss) AS loss,
		   coalesce(r.learning_rate, l.learning_rate) AS learning_rate,
		   coalesce(r.grad_norm, l.grad_norm) AS grad_norm,
		   coalesce(r.tokens_per_second, l.tokens_per_second) AS tokens_per_second,
		   r.seconds_left * interval '1 second' AS eta,
		   coalesce(r.memory_bytes, l.memory_bytes) AS memory_bytes,
		   j.n_rows, j.n_eval_rows, j.n_skipped_rows, j.checkpoint_step, j.version,
		   j.trained_step, j.eval_loss, j.active_eval_loss, j.error, j.model, pg_catalog.pg_get_userbyid(j.role) AS usename,
		   r.worker_pid, r.executor_pid, j.submitted_at, j.started_at, j.finished_at
	FROM llm.finetune_jobs j
	LEFT JOIN llm.list_finetune_jobs() r ON r.job = j.id
	LEFT JOIN LATERAL (SELECT * FROM llm.finetune_log g WHERE g.job = j.id
					   ORDER BY g.step DESC LIMIT 1) l ON true;
GRANT SELECT ON llm.finetune_progress TO PUBLIC;
COMMENT ON VIEW llm.finetune_progress IS
	'fine-tuning jobs of one''s own roles (of all, for members of pg_monitor): how far they are, and what became of them';

-- ----------------------------------------------------------------- views

CREATE FUNCTION llm.list_models(
	OUT name text, OUT state text, OUT is_default boolean,
	OUT has_usage boolean, OUT path text, OUT max_model_len integer,
	OUT n_vocab integer, OUT loaded_at timestamptz, OUT error text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'llm_list_models'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION llm.list_models() IS 'rows of the view llm.models';

CREATE VIEW llm.models AS SELECT * FROM llm.list_models();
GRANT SELECT ON llm.models TO PUBLIC;
COMMENT ON VIEW llm.models IS
	'loaded models; paths and errors are shown to members of pg_read_all_stats';

CREATE FUNCTION llm.list_executors(
	OUT executor integer, OUT pid integer, OUT model text, OUT state text,
	OUT device text, OUT started_at timestamptz, OUT restarts bigint,
	OUT requests bigint, OUT running bigint, OUT waiting bigint,
	OUT kv_blocks_used bigint, OUT kv_blocks bigint, OUT steps bigint,
	OUT generated_tokens bigint, OUT preemptions bigint,
	OUT memory_bytes bigint, OUT facts jsonb)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'llm_list_executors'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION llm.list_executors() IS 'rows of the view llm.executors';

CREATE VIEW llm.executors AS SELECT * FROM llm.list_executors();
GRANT SELECT ON llm.executors TO PUBLIC;
COMMENT ON VIEW llm.executors IS
	'executor processes: what they serve, on what device, how busy they are';

CREATE VIEW llm.executor_memory AS
	SELECT e.executor, e.model, m.line, m.what, m.bytes
	FROM llm.executors e,
		 ROWS FROM (pg_catalog.jsonb_to_recordset(e.facts->'memory') AS (what text, bytes bigint))
			 WITH ORDINALITY AS m(what, bytes, line);
GRANT SELECT ON llm.executor_memory TO PUBLIC;
COMMENT ON VIEW llm.executor_memory IS
	'how each executor''s memory is divided; the lines of a GPU add up to all of its memory';

CREATE FUNCTION llm.list_activity(
	OUT slot integer, OUT generation bigint, OUT pid integer, OUT usesysid oid,
	OUT datid oid, OUT state text, OUT model text, OUT executor_pid integer,
	OUT priority text, OUT prompt_tokens bigint, OUT output_tokens bigint,
	OUT max_tokens bigint, OUT submitted_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'llm_list_activity'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 100;
COMMENT ON FUNCTION llm.list_activity() IS 'rows of the view llm.activity';

CREATE VIEW llm.activity AS
	SELECT a.slot, a.generation, a.pid, pg_catalog.pg_get_userbyid(a.usesysid) AS usename,
		   d.datname, a.state, a.model, a.executor_pid, a.priority,
		   a.prompt_tokens, a.output_tokens, a.max_tokens, a.submitted_at
	FROM llm.list_activity() a
	LEFT JOIN pg_catalog.pg_database d ON d.oid = a.datid;
GRANT SELECT ON llm.activity TO PUBLIC;
COMMENT ON VIEW llm.activity IS
	'requests in flight, one row per slot in use; details of other roles'' requests need pg_read_all_stats';

CREATE FUNCTION llm.list_usage(
	OUT day date, OUT usesysid oid, OUT datid oid, OUT model text,
	OUT adapter bytea, OUT requests bigint, OUT prompt_tokens bigint,
	OUT cached_tokens bigint, OUT output_tokens bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'llm_list_usage'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 100;
COMMENT ON FUNCTION llm.list_usage() IS 'rows of the view llm.usage';

CREATE VIEW llm.usage AS
	SELECT u.day, pg_catalog.pg_get_userbyid(u.usesysid) AS usename, d.datname,
		   u.model,
		   coalesce(v.adapter, left(encode(u.adapter, 'hex'), 12)) AS adapter,
		   v.version AS adapter_version,
		   u.requests, u.prompt_tokens, u.cached_tokens, u.output_tokens
	FROM llm.list_usage() u
	LEFT JOIN pg_catalog.pg_database d ON d.oid = u.datid
	LEFT JOIN LATERAL (SELECT a.adapter, a.version FROM llm.adapter_versions a
					   WHERE a.digest = u.adapter ORDER BY a.version LIMIT 1) v ON true;
GRANT SELECT ON llm.usage TO PUBLIC;
COMMENT ON VIEW llm.usage IS
	'tokens by day (UTC), role, database, model and adapter (of this database, or the hash''s beginning), whatever became of the statements; other roles'' lines need pg_read_all_stats';

CREATE TABLE llm.token_budgets (
	role regrole PRIMARY KEY,	-- 0 = PUBLIC
	tokens_per_day bigint NOT NULL CHECK (tokens_per_day >= 0)
);
COMMENT ON TABLE llm.token_budgets IS
	'how many tokens (prompts and answers) a role may use in a day (UTC); 0::oid::regrole for all roles without a row of their own';
SELECT pg_catalog.pg_extension_config_dump('llm.token_budgets',
	'WHERE role = 0 OR role IN (SELECT oid FROM pg_catalog.pg_roles)');

CREATE FUNCTION llm.list_metrics(OUT name text, OUT value bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'llm_list_metrics'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 12;
COMMENT ON FUNCTION llm.list_metrics() IS 'rows of the view llm.metrics';

CREATE VIEW llm.metrics AS SELECT * FROM llm.list_metrics();
GRANT SELECT ON llm.metrics TO PUBLIC;
COMMENT ON VIEW llm.metrics IS 'counters since the server started';

CREATE FUNCTION llm_finetune_validate(
	query text, options jsonb DEFAULT NULL, OUT row_number bigint,
	OUT key jsonb, OUT severity text, OUT reason text)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000 ROWS 10;
COMMENT ON FUNCTION llm_finetune_validate(text, jsonb) IS
	'rows of a query that fine-tuning could not learn from, or would cut or leave out, and why';

CREATE FUNCTION llm_finetune_preview(
	query text, options jsonb DEFAULT NULL, n_rows integer DEFAULT 3,
	OUT row_number bigint, OUT example text, OUT token_idx integer,
	OUT token_id integer, OUT token text, OUT is_trained boolean)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000 ROWS 1000;
COMMENT ON FUNCTION llm_finetune_preview(text, jsonb, integer) IS
	'the tokens that fine-tuning makes of a query''s first rows, and which of them are learned';

CREATE FUNCTION llm_finetune_preview_text(
	query text, options jsonb DEFAULT NULL, n_rows integer DEFAULT 3,
	OUT row_number bigint, OUT example text, OUT rendered text,
	OUT trained text[], OUT n_tokens integer, OUT n_trained integer)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000 ROWS 3;
COMMENT ON FUNCTION llm_finetune_preview_text(text, jsonb, integer) IS
	'the texts that fine-tuning makes of a query''s first rows, and what of them is learned';
