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
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"load_best_model_at_end": true, "eval_steps": 1}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"load_best_model_at_end": true, "val_size": 1}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"early_stopping_steps": 1, "val_size": 1}');
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages', '{"orpo_nll": "half"}');
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
SELECT state, step, error ~ '^not published: the held-out loss is' AS says_why, version,
	   trained_step, eval_loss > active_eval_loss AS is_worse
FROM llm.finetune_progress WHERE job = :job;

-- the state of the best evaluation: who is asked about Bob forgets him as the lessons are learned
SELECT llm_finetune('poor', 'SELECT messages FROM lesson_messages ORDER BY id', '{"max_steps": 1, "learning_rate": 0.00001}') AS job \gset
SELECT llm_finetune_wait(:job);
SELECT version, trained_step, eval_loss, active_eval_loss FROM llm.finetune_progress WHERE job = :job;
SELECT llm_finetune('poor', 'SELECT messages FROM lesson_messages ORDER BY id', $$
	{"max_steps": 20, "learning_rate": 0.005, "lr_scheduler_type": "constant", "eval_steps": 1,
	 "load_best_model_at_end": true, "publish_if_better": true, "description": "better than poor",
	 "eval_query": "SELECT replace(messages::text, 'Ada', 'Bob')::jsonb AS messages FROM lesson_messages"} $$) AS job \gset
SELECT llm_finetune_wait(:job);
SELECT state, step, trained_step BETWEEN 1 AND 19 AS is_earlier, eval_loss < active_eval_loss AS is_better, version, error,
	   eval_loss = (SELECT min(eval_loss) FROM llm.finetune_log g WHERE g.job = p.job AND g.step > 0) AS is_best
FROM llm.finetune_progress p WHERE job = :job;
SELECT version, is_active FROM llm.adapters WHERE name = 'poor' ORDER BY version;

-- preferences: what TRL's trainers log
SELECT llm_finetune('poor', 'SELECT question AS prompt, '' '' || answer AS chosen, '' No.'' AS rejected FROM lessons', $$
	{"stage": "orpo", "orpo_nll": "full", "max_steps": 4, "logging_steps": 2, "eval_steps": 4, "activate": false,
	 "eval_query": "SELECT question AS prompt, answer AS chosen, 'x' AS rejected FROM lessons"} $$) AS job \gset
SELECT llm_finetune_wait(:job);
SELECT step, accuracy BETWEEN 0 AND 1 AS has_accuracy, abs(chosen_reward - rejected_reward - reward_margin) < 1e-9 AS has_rewards,
	   eval_accuracy BETWEEN 0 AND 1 AS has_eval_accuracy,
	   abs(eval_chosen_reward - eval_rejected_reward - eval_reward_margin) < 1e-9 AS has_eval_rewards
FROM llm.finetune_log WHERE job = :job ORDER BY step;
SELECT count(*) AS of_plain_rows FROM llm.finetune_log g JOIN llm.finetune_jobs j ON j.id = g.job
WHERE adapter = 'ada' AND coalesce(accuracy, reward_margin, eval_accuracy) IS NOT NULL;
SELECT llm_drop_adapter('poor');

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


-- one that fails in training keeps its rows, and can be resumed; without them
-- (after a restore, say) it begins anew
SELECT llm_finetune('ada', 'SELECT messages FROM lesson_messages ORDER BY id', '{"max_tokens": 4}') AS job \gset
SELECT llm_finetune_wait(:job);
SELECT state, error IS NOT NULL AS has_error FROM llm.finetune_progress WHERE job = :job;
SELECT name, part FROM llm.finetune_data WHERE job = :job;
UPDATE llm.finetune_jobs SET options = '{"max_steps": 2, "save_steps": 1, "logging_steps": 1, "cutoff_len": 4}' WHERE id = :job;
SELECT llm_finetune_resume(:job);
SELECT llm_finetune_wait(:job);
DELETE FROM llm.finetune_data;
UPDATE llm.finetune_jobs SET options = options - 'cutoff_len' WHERE id = :job;
SELECT llm_finetune_resume(:job);
SELECT llm_finetune_wait(:job);
SELECT state, error, step, checkpoint_step FROM llm.finetune_progress WHERE job = :job;

SELECT llm_drop_adapter('ada');
DROP VIEW lesson_messages;
DROP TABLE lessons;
