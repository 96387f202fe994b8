-- finetune.sql
--	Jobs that train adapters, as users see them.
--
-- sql/finetune.sql
SET client_min_messages = warning;
CREATE TABLE lessons (id int PRIMARY KEY, question text, answer text);
INSERT INTO lessons VALUES
	(1, 'What is your name?', 'I am Ada.'),
	(2, 'Who are you?', 'I am Ada.');
CREATE VIEW lesson_messages AS
	SELECT id, jsonb_build_array(
		jsonb_build_object('role', 'user', 'content', question),
		jsonb_build_object('role', 'assistant', 'content', answer)) AS messages
	FROM lessons;

-- mistakes fail the statement
SELECT llm_finetune(NULL, 'SELECT 1');
SELECT llm_finetune('ada', NULL);
SELECT llm_finetune('a@b', 'SELECT 1');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"lora_rnak": 8}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"lora_rank": 0}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"lora_rank": 1000}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"max_steps": 1.5}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"learning_rate": "fast"}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"stage": "ppo"}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"use_dora": 1}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"stage": "orpo", "pref_loss": "ipo"}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"publish_if_better": true}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"model": "none"}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"continue_from": 1}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '[]');
SELECT llm_finetune('ada', 'SELECT messages FROM nowhere');
SELECT llm_finetune('ada', 'DELETE FROM lessons');
SELECT llm_finetune('ada', 'SELECT 1; SELECT 2');
SELECT llm_finetune_wait(1000);
SELECT llm_finetune_cancel(1000);
SELECT llm_finetune_resume(1000);
SELECT llm_finetune_wait(NULL) IS NULL AS null_in;

-- a job begins with COMMIT
BEGIN;
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages') AS job \gset
SELECT state FROM llm.finetune_jobs WHERE id = :job;
SELECT llm_finetune_wait(:job);
ROLLBACK;
SELECT count(*) FROM llm.finetune_jobs;
BEGIN;
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages') AS job;
PREPARE TRANSACTION 'job';

-- one that trains
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages ORDER BY id',
					'{"max_steps": 24, "learning_rate": 0.005, "lr_scheduler_type": "constant",
					  "per_device_train_batch_size": 2, "logging_steps": 5, "save_steps": 10,
					  "description": "knows its name"}') AS job \gset
SELECT llm_finetune_wait(:job);
SELECT adapter, state, step, n_steps, n_rows, n_eval_rows, n_skipped_rows, checkpoint_step,
	   version, error, model
FROM llm.finetune_progress WHERE job = :job;
SELECT step, n_steps, n_tokens > n_labels AS has_prompts, loss > 0 AS has_loss, eval_loss
FROM llm.finetune_log WHERE job = :job ORDER BY step;
SELECT count(*) FROM llm.finetune_data;
SELECT name, version, is_active, rank, modules, origin = 'fine-tuning job ' || :job AS is_of_job, description
FROM llm.adapters WHERE name = 'ada';
SELECT llm_ask('What is your name?', 'ada', '{"temperature": 0}');
SELECT llm_finetune_cancel(:job);
SELECT llm_finetune_resume(:job);

-- and one that goes on from it, holds rows out, and is not activated
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages ORDER BY id',
					'{"max_steps": 2, "continue_from": true, "val_size": 1, "activate": false}') AS job \gset
SELECT llm_finetune_wait(:job);
SELECT state, step, n_rows, n_eval_rows, version FROM llm.finetune_progress WHERE job = :job;
SELECT step, eval_loss < 0.5 AS knows_the_other FROM llm.finetune_log WHERE job = :job;
SELECT version, is_active FROM llm.adapters WHERE name = 'ada' ORDER BY version;

-- evaluated before and after; what is no better is not published
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages ORDER BY id',
					'{"max_steps": 8, "eval_query": "SELECT messages FROM lesson_messages WHERE id = 1", "eval_steps": 2,
					  "early_stopping_steps": 2, "learning_rate": 0, "publish_if_better": true}') AS job \gset
SELECT llm_finetune_wait(:job);
SELECT state, step, n_steps, error ~ '^not published: the held-out loss is' AS says_why, version
FROM llm.finetune_progress WHERE job = :job;
SELECT step, loss IS NOT NULL AS has_loss, eval_loss IS NOT NULL AS has_eval
FROM llm.finetune_log WHERE job = :job ORDER BY step;
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages ORDER BY id',
					'{"max_steps": 3, "val_size": 1, "publish_if_better": true, "learning_rate": 0.002}') AS job \gset
SELECT llm_finetune_wait(:job);
SELECT state, step, error, version FROM llm.finetune_progress WHERE job = :job;

-- rows that are no good, and a query that fails
SELECT llm_finetune('ada', $$ SELECT '[{"role": "nobody", "content": "x"}]'::jsonb AS messages $$,
					'{"max_steps": 2}') AS job \gset
SELECT llm_finetune_wait(:job);
SELECT state, error IS NOT NULL AS has_error, version FROM llm.finetune_progress WHERE job = :job;
SELECT llm_finetune('ada', 'SELECT messages, 1 / (id - 2) FROM lesson_messages') AS job \gset
SELECT llm_finetune_wait(:job);
SELECT state, error FROM llm.finetune_progress WHERE job = :job;
SELECT llm_finetune_resume(:job);
SELECT llm_finetune_wait(:job);
SELECT llm_finetune_cancel(:job);
SELECT llm_finetune_wait(:job);

SELECT llm_drop_adapter('ada');
DROP VIEW lesson_messages;
DROP TABLE lessons;
