/*
 * weight_spec.c
 *	  The weights that a config calls for, and whether a checkpoint has them.
 *
 * src/common/model_dir/weight_spec.c
 */
#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "src/common/checkpoint/checkpoint.h"
#include "src/common/model_dir/model_dir_internal.h"
#include "src/common/util/unit_code.h"

/* Roles from this one on come once in each layer. */
#define FIRST_LAYER_ROLE LLM_WEIGHT_ATTN_NORM

/* ... and from this one on once for each expert of a layer. */
#define FIRST_EXPERT_ROLE LLM_WEIGHT_EXPERT_GATE
#define N_EXPERT_ROLES (LLM_WEIGHT_ROLE_COUNT - FIRST_EXPERT_ROLE)

/* Whether a layer's MLP is a mixture of experts; outside layers nothing is. */
static bool
is_mixture(const LlmModelConfig *config, int32_t layer_idx)
{
	return layer_idx >= 0 &&
		   llm_layer_set_has(&config->expert_layers, layer_idx);
}

static bool
has_role(const LlmModelConfig *config, LlmWeightRole role, int32_t layer_idx)
{
	switch (role)
	{
		case LLM_WEIGHT_LM_HEAD:
			return !config->tie_word_embeddings;
		case LLM_WEIGHT_Q_BIAS:
		case LLM_WEIGHT_K_BIAS:
		case LLM_WEIGHT_V_BIAS:
			return config->has_qkv_bias;
		case LLM_WEIGHT_O_BIAS:
			return config->has_o_bias;
		case LLM_WEIGHT_Q_NORM:
		case LLM_WEIGHT_K_NORM:
			return config->has_qk_norm;
		case LLM_WEIGHT_GATE:
		case LLM_WEIGHT_UP:
		case LLM_WEIGHT_DOWN:
			return !is_mixture(config, layer_idx);
		case LLM_WEIGHT_GATE_BIAS:
		case LLM_WEIGHT_UP_BIAS:
		case LLM_WEIGHT_DOWN_BIAS:
			return config->has_mlp_bias && !is_mixture(config, layer_idx);
		case LLM_WEIGHT_POST_ATTN_NORM:
		case LLM_WEIGHT_POST_MLP_NORM:
			return config->has_post_norms;
		case LLM_WEIGHT_ROUTER:
		case LLM_WEIGHT_EXPERT_GATE:
		case LLM_WEIGHT_EXPERT_UP:
		case LLM_WEIGHT_EXPERT_DOWN:
			return is_mixture(config, layer_idx);
		default:
			return true;
	}
}

static void
set_shape(LlmWeightSpec *spec, int64_t n_rows, int64_t n_cols)
{
	spec->n_rows = n_rows;
	spec->n_cols = n_cols;
}

static void
shape_of_role(const LlmModelConfig *config, LlmWeightSpec *spec)
{
	int64_t hidden = config->hidden_size;
	int64_t inner = config->intermediate_size;
	int64_t q_dim = (int64_t) config->n_heads * config->head_dim;
	int64_t kv_dim = (int64_t) config->n_kv_heads * config->head_dim;

	switch (spec->role)
	{
		case LLM_WEIGHT_EMBED:
		case LLM_WEIGHT_LM_HEAD:
			set_shape(spec, config->n_vocab, hidden);
			break;
		case LLM_WEIGHT_FINAL_NORM:
		case LLM_WEIGHT_ATTN_NORM:
		case LLM_WEIGHT_MLP_NORM:
		case LLM_WEIGHT_POST_ATTN_NORM:
		case LLM_WEIGHT_POST_MLP_NORM:
		case LLM_WEIGHT_O_BIAS:
		case LLM_WEIGHT_DOWN_BIAS:
			set_shape(spec, hidden, 0);
			break;
		case LLM_WEIGHT_Q:
			set_shape(spec, q_dim, hidden);
			break;
		case LLM_WEIGHT_K:
		case LLM_WEIGHT_V:
			set_shape(spec, kv_dim, hidden);
			break;
		case LLM_WEIGHT_O:
			set_shape(spec, hidden, q_dim);
			break;
		case LLM_WEIGHT_Q_BIAS:
			set_shape(spec, q_dim, 0);
			break;
		case LLM_WEIGHT_K_BIAS:
		case LLM_WEIGHT_V_BIAS:
			set_shape(spec, kv_dim, 0);
			break;
		case LLM_WEIGHT_Q_NORM:
		case LLM_WEIGHT_K_NORM:
			set_shape(spec, config->head_dim, 0);
			break;
		case LLM_WEIGHT_GATE:
		case LLM_WEIGHT_UP:
			set_shape(spec, inner, hidden);
			break;
		case LLM_WEIGHT_DOWN:
			set_shape(spec, hidden, inner);
			break;
		case LLM_WEIGHT_GATE_BIAS:
		case LLM_WEIGHT_UP_BIAS:
			set_shape(spec, inner, 0);
			break;
		case LLM_WEIGHT_ROUTER:
			set_shape(spec, config->n_experts, hidden);
			break;
		case LLM_WEIGHT_EXPERT_GATE:
		case LLM_WEIGHT_EXPERT_UP:
			set_shape(spec, config->expert_intermediate_size, hidden);
			break;
		case LLM_WEIGHT_EXPERT_DOWN:
			set_shape(spec, hidden, config->expert_intermediate_size);
			break;
		case LLM_WEIGHT_ROLE_COUNT:
			assert(false);
			break;
	}
}

/* Write pattern to name, '#' replaced by the layer and '@' by the expert. */
static void
expand_name(const char *pattern, const LlmWeightSpec *spec, char *name,
			size_t size)
{
	size_t used = 0;

	for (; *pattern != '\0'; pattern++)
	{
		/* the longest number has ten digits */
		assert(used + 11 < size);
		if (*pattern == '#' || *pattern == '@')
			used += (size_t) snprintf(name + used, size - used, "%d",
									  *pattern == '#' ? spec->layer_idx
													  : spec->expert_idx);
		else
			name[used++] = *pattern;
	}
	name[used] = '\0';
}

/* Roles that share a tensor are its rows, in the order of the roles. */
static void
place_in_tensor(const LlmModelConfig *config, LlmWeightSpec *spec)
{
	const char *const *names = config->family->tensor_names;

	spec->first_row = 0;
	spec->stored_rows = 0;
	for (int role = 0; role < LLM_WEIGHT_ROLE_COUNT; role++)
	{
		LlmWeightSpec part = { .role = (LlmWeightRole) role };

		if (names[role] == NULL ||
			strcmp(names[role], names[spec->role]) != 0 ||
			!has_role(config, part.role, spec->layer_idx))
			continue;
		shape_of_role(config, &part);
		if (part.role < spec->role)
			spec->first_row += part.n_rows;
		spec->stored_rows += part.n_rows;
	}
	assert(spec->first_row + spec->n_rows <= spec->stored_rows);
}

static void
fill_spec(const LlmModelConfig *config, LlmWeightRole role, int32_t layer_idx,
		  int32_t expert_idx, LlmWeightSpec *spec)
{
	const char *pattern = config->family->tensor_names[role];

	assert(pattern != NULL);
	spec->role = role;
	spec->layer_idx = layer_idx;
	spec->expert_idx = expert_idx;
	expand_name(pattern, spec, spec->name, sizeof(spec->name));
	shape_of_role(config, spec);
	place_in_tensor(config, spec);
}

/* The roles from first up to before last that a layer has, or the model. */
static int
count_roles(const LlmModelConfig *config, int32_t layer_idx, int first,
			int last)
{
	int n = 0;

	for (int role = first; role < last; role++)
		n += has_role(config, (LlmWeightRole) role, layer_idx);
	return n;
}

/* The n-th of them. */
static LlmWeightRole
nth_role(const LlmModelConfig *config, int32_t layer_idx, int n, int first,
		 int last)
{
	for (int role = first; role < last; role++)
	{
		if (has_role(config, (LlmWeightRole) role, layer_idx) && n-- == 0)
			return (LlmWeightRole) role;
	}
	return LLM_WEIGHT_ROLE_COUNT;
}

static int
count_layer_weights(const LlmModelConfig *config, int32_t layer_idx)
{
	int n = count_roles(config, layer_idx, FIRST_LAYER_ROLE, FIRST_EXPERT_ROLE);

	if (is_mixture(config, layer_idx))
		n += N_EXPERT_ROLES * config->n_experts;
	return n;
}

/* A layer's n-th weight: what all experts share, then expert by expert. */
static void
fill_layer_spec(const LlmModelConfig *config, int32_t layer_idx, int n,
				LlmWeightSpec *spec)
{
	LlmWeightRole role =
		nth_role(config, layer_idx, n, FIRST_LAYER_ROLE, FIRST_EXPERT_ROLE);

	if (role != LLM_WEIGHT_ROLE_COUNT)
	{
		fill_spec(config, role, layer_idx, -1, spec);
		return;
	}
	n -= count_roles(config, layer_idx, FIRST_LAYER_ROLE, FIRST_EXPERT_ROLE);
	fill_spec(config, (LlmWeightRole) (FIRST_EXPERT_ROLE + n % N_EXPERT_ROLES),
			  layer_idx, n / N_EXPERT_ROLES, spec);
}

/* In the order of a forward pass: embedding, layers, final norm, head. */
bool
llm_model_weight_spec(const LlmModelConfig *config, int weight_idx,
					  LlmWeightSpec *spec)
{
	/* layers are of two kinds at most: only the first of each is counted */
	int n_of_kind[2] = { 0, 0 };
	int n = weight_idx - 1;
	LlmWeightRole role;

	assert(weight_idx >= 0);
	if (weight_idx == 0)
	{
		fill_spec(config, LLM_WEIGHT_EMBED, -1, -1, spec);
		return true;
	}
	for (int32_t layer = 0; layer < config->n_layers; layer++)
	{
		int *n_weights = &n_of_kind[is_mixture(config, layer)];

		if (*n_weights == 0)
			*n_weights = count_layer_weights(config, layer);
		if (n < *n_weights)
		{
			fill_layer_spec(config, layer, n, spec);
			return true;
		}
		n -= *n_weights;
	}
	role = nth_role(config, -1, n, LLM_WEIGHT_FINAL_NORM, FIRST_LAYER_ROLE);
	if (role == LLM_WEIGHT_ROLE_COUNT)
		return false;
	fill_spec(config, role, -1, -1, spec);
	return true;
}

/* Elements of the roles from first up to before last, once each. */
static int64_t
count_params(const LlmModelConfig *config, int32_t layer_idx, int first,
			 int last)
{
	int64_t n = 0;

	for (int role = first; role < last; role++)
	{
		LlmWeightSpec spec = { .role = (LlmWeightRole) role };

		if (!has_role(config, spec.role, layer_idx))
			continue;
		shape_of_role(config, &spec);
		n += spec.n_rows * (spec.n_cols > 0 ? spec.n_cols : 1);
	}
	return n;
}

int64_t
llm_model_n_params(const LlmModelConfig *config)
{
	int64_t n = count_params(config, -1, 0, FIRST_LAYER_ROLE);

	for (int32_t i = 0; i < config->n_layers; i++)
		n += count_params(config, i, FIRST_LAYER_ROLE, FIRST_EXPERT_ROLE) +
			 config->n_experts * count_params(config, i, FIRST_EXPERT_ROLE,
											  LLM_WEIGHT_ROLE_COUNT);
	return n;
}

int64_t
llm_model_kv_bytes_per_token(const LlmModelConfig *config, LlmDtype kv_dtype)
{
	int64_t head_bytes =
		config->head_dim * (int64_t) llm_dtype_bytes(kv_dtype) +
		(llm_dtype_is_coded(kv_dtype) ? 1 : 0);

	return 2 * (int64_t) config->n_layers * config->n_kv_heads * head_bytes;
}

/* ---- a checkpoint's tensors against the weights ---- */

typedef struct TensorCheck
{
	const LlmModelConfig *config;
	const LlmCheckpoint *tensors;
	LlmError *problems;
	int max_problems;
	int n_problems;
} TensorCheck;

/* Where to describe the next problem; NULL when there is no room. */
static LlmError *
next_problem(TensorCheck *check)
{
	int idx = check->n_problems++;

	return idx < check->max_problems ? &check->problems[idx] : NULL;
}

/* Floats, or the blocks that src/common/quant decodes. */
static bool
is_weight_dtype(LlmDtype dtype)
{
	return llm_dtype_is_float(dtype) || llm_dtype_block_elements(dtype) > 1;
}

static void
check_weight(TensorCheck *check, const LlmWeightSpec *spec)
{
	const LlmStoredTensor *tensor =
		llm_checkpoint_find(check->tensors, spec->name);
	int64_t shape[2] = { spec->stored_rows, spec->n_cols };
	int n_dims = spec->n_cols > 0 ? 2 : 1;
	const char *path;

	if (tensor == NULL)
	{
		/* all files of a checkpoint lie in one directory: any names it */
		llm_error_set(
			next_problem(check), LLM_ERROR_NOT_FOUND,
			"%s: tensor \"%s\" is missing",
			llm_checkpoint_n_tensors(check->tensors) > 0
				? llm_checkpoint_path(check->tensors,
									  llm_checkpoint_get(check->tensors, 0))
				: "checkpoint",
			spec->name);
		return;
	}
	path = llm_checkpoint_path(check->tensors, tensor);
	if (tensor->n_dims != n_dims ||
		memcmp(tensor->shape, shape, (size_t) n_dims * sizeof(*shape)) != 0)
	{
		char expected[64];
		char actual[200];

		llm_safetensors_print_shape(expected, sizeof(expected), shape, n_dims);
		llm_safetensors_print_shape(actual, sizeof(actual), tensor->shape,
									tensor->n_dims);
		llm_error_set(next_problem(check), LLM_ERROR_FORMAT,
					  "%s: tensor \"%s\" has shape %s, but the config calls "
					  "for %s",
					  path, spec->name, actual, expected);
	}
	else if (!tensor->is_known_dtype || !is_weight_dtype(tensor->dtype))
	{
		LlmError *problem = next_problem(check);

		llm_error_set(problem, LLM_ERROR_UNSUPPORTED,
					  "%s: tensor \"%s\" has dtype %s, which is not supported",
					  path, spec->name, tensor->dtype_name);
		llm_error_hint(problem, "Supported are F32, F16 and BF16, and in GGUF "
								"files Q8_0, Q4_0 to Q5_1, Q2_K to Q6_K, "
								"IQ4_NL and IQ4_XS.");
	}
}

/* A number up to 99999, written the usual way; -1 where there is none. */
static int32_t
read_number(const char **text)
{
	const char *digits = *text;
	int32_t number = 0;
	int n = 0;

	for (; isdigit((unsigned char) digits[n]); n++)
	{
		if (n == 5)
			return -1;
		number = number * 10 + (digits[n] - '0');
	}
	*text += n;
	return n == 0 || (n > 1 && digits[0] == '0') ? -1 : number;
}

/*
 * Whether a name is of a pattern, in which '#' stands for a layer and '@' for
 * an expert: *layer_idx and *expert_idx, which stay where there is none.
 */
static bool
matches(const char *pattern, const char *name, int32_t *layer_idx,
		int32_t *expert_idx)
{
	for (; *pattern != '\0'; pattern++)
	{
		if (*pattern == '#' || *pattern == '@')
		{
			int32_t number = read_number(&name);

			if (number < 0)
				return false;
			*(*pattern == '#' ? layer_idx : expert_idx) = number;
		}
		else if (*pattern == '*')
			return true;
		else if (*pattern != *name++)
			return false;
	}
	return *name == '\0';
}

/*
 * A head that is stored although it is tied: fine where it has the
 * embedding's shape; the loader compares its values.
 */
static bool
is_tied_head(const TensorCheck *check, const LlmStoredTensor *tensor)
{
	const LlmModelConfig *config = check->config;

	return config->tie_word_embeddings &&
		   strcmp(tensor->name,
				  config->family->tensor_names[LLM_WEIGHT_LM_HEAD]) == 0 &&
		   tensor->n_dims == 2 && tensor->shape[0] == config->n_vocab &&
		   tensor->shape[1] == config->hidden_size;
}

/* Whether a name is a weight's of that role. */
static bool
is_weight(const LlmModelConfig *config, LlmWeightRole role, const char *name)
{
	const char *pattern = config->family->tensor_names[role];
	int32_t layer_idx = -1;
	int32_t expert_idx = -1;

	return pattern != NULL && matches(pattern, name, &layer_idx, &expert_idx) &&
		   layer_idx < config->n_layers &&
		   (expert_idx < 0 || expert_idx < config->n_experts) &&
		   has_role(config, role, layer_idx);
}

static bool
is_expected(const TensorCheck *check, const LlmStoredTensor *tensor)
{
	const LlmModelConfig *config = check->config;
	const char *const *harmless = config->family->harmless_tensors;
	int32_t number;

	for (int role = 0; role < LLM_WEIGHT_ROLE_COUNT; role++)
	{
		if (is_weight(config, (LlmWeightRole) role, tensor->name))
			return true;
	}
	for (; *harmless != NULL; harmless++)
	{
		if (matches(*harmless, tensor->name, &number, &number))
			return true;
	}
	return is_tied_head(check, tensor);
}

int
llm_model_check_tensors(const LlmModelConfig *config,
						const LlmCheckpoint *tensors, LlmError *problems,
						int max_problems)
{
	TensorCheck check = { config, tensors, problems, max_problems, 0 };
	LlmWeightSpec spec;

	for (int i = 0; llm_model_weight_spec(config, i, &spec); i++)
	{
		/* a tensor of several weights is looked at once */
		if (spec.first_row == 0)
			check_weight(&check, &spec);
	}
	for (int i = 0; i < llm_checkpoint_n_tensors(tensors); i++)
	{
		const LlmStoredTensor *tensor = llm_checkpoint_get(tensors, i);

		if (!is_expected(&check, tensor))
			llm_error_set(next_problem(&check), LLM_ERROR_UNSUPPORTED,
						  "%s: tensor \"%s\" is not part of architecture "
						  "\"%s\"",
						  llm_checkpoint_path(tensors, tensor), tensor->name,
						  config->architecture);
	}
	return check.n_problems;
}
