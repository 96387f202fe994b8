/*
 * adapter_stack.c
 *	  Experts' matrices as PEFT stacks them for its target_parameters.
 *
 * transformers 5 holds all experts of a layer in two parameters, gate_up_proj
 * and down_proj, and PEFT's wrappers of these have one pair for all experts:
 * of rank r, A [n_experts * r, n_in] has expert e's rows from e * r on, and
 * B [n_out, r * n_experts] has in column k * n_experts + e what is expert e's
 * column k.  Both wrappers are of one module, the inner one under
 * "base_layer", so it takes their shapes to tell which parameter each is of.
 *
 * Here they become the pairs of each expert's own modules; gate and up have
 * the same A, as the parts of a fused module do.
 *
 * src/common/adapter/adapter_stack.c
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "src/common/adapter/adapter_internal.h"

/* The layer of a mixture, and the wrapper: 0 the outer, 1 the inner; -1. */
static int
wrapper_of(const LlmModelConfig *config, const char *plain, int *layer_idx)
{
	static const char *const ends[] = { ".experts", ".experts.base_layer" };
	const char *dot;
	int len = 0;

	if (sscanf(plain, "layers.%5d.%n", layer_idx, &len) != 1 || len == 0 ||
		*layer_idx < 0 || *layer_idx >= config->n_layers ||
		!llm_layer_set_has(&config->expert_layers, *layer_idx))
		return -1;
	dot = strchr(plain + len, '.');
	for (int i = 0; dot != NULL && i < 2; i++)
	{
		if (strcmp(dot, ends[i]) == 0)
			return i;
	}
	return -1;
}

AdapterStack *
adapter_stack_find(const LlmModelConfig *config, AdapterStack *stacks,
				   const char *plain)
{
	int layer_idx;
	int wrapper = wrapper_of(config, plain, &layer_idx);

	return wrapper < 0 ? NULL : &stacks[2 * layer_idx + wrapper];
}

/*
 * Whether a stack is of gate_up_proj.  Its matrices are [.., hidden] and
 * [2 inner, ..], those of down_proj [.., inner] and [hidden, ..]: at least one
 * of them differs.
 */
static bool
is_gate_up(const LlmModelConfig *config, const AdapterStack *stack)
{
	if (config->hidden_size != config->expert_intermediate_size)
		return stack->a->shape[1] == config->hidden_size;
	return stack->b->shape[0] != config->hidden_size;
}

bool
adapter_stack_check(const LlmModelConfig *config, AdapterStack *stack,
					LlmError *err)
{
	const LlmStoredTensor *any = stack->a != NULL ? stack->a : stack->b;

	if (stack->a == NULL || stack->b == NULL)
		return llm_error_set(err, LLM_ERROR_NOT_FOUND,
							 "tensor \"%s\" lacks the other one of its pair",
							 any->name);
	if (stack->a->n_dims != 2 || stack->b->n_dims != 2 ||
		stack->a->shape[0] == 0 ||
		stack->a->shape[0] % config->n_experts != 0 ||
		stack->b->shape[1] != stack->a->shape[0])
		return llm_error_set(
			err, LLM_ERROR_FORMAT,
			"tensors \"%s\" and \"%s\" do not hold pairs of %d "
			"experts",
			stack->a->name, stack->b->name, config->n_experts);
	stack->is_gate_up = is_gate_up(config, stack);
	if (stack->b->shape[0] ==
		(stack->is_gate_up ? 2 * (int64_t) config->expert_intermediate_size
						   : config->hidden_size))
		return true;
	return llm_error_set(err, LLM_ERROR_FORMAT,
						 "tensor \"%s\" has %lld rows, which the experts of "
						 "the base model do not",
						 stack->b->name, (long long) stack->b->shape[0]);
}

const char *
adapter_stack_parameter(const AdapterStack *stack)
{
	return stack->is_gate_up ? "experts.gate_up_proj" : "experts.down_proj";
}

bool
adapter_stack_has(const AdapterStack *stack, LlmAdapterModule module)
{
	assert(llm_adapter_is_expert(module));
	return stack->a != NULL &&
		   stack->is_gate_up == (module != LLM_ADAPTER_EXPERT_DOWN);
}

void
adapter_stack_a(const AdapterStack *stack, const AdapterTarget *target,
				int32_t n_experts, LlmStoredTensor *a)
{
	const int64_t rank = stack->a->shape[0] / n_experts;
	const size_t n_bytes = stack->a->n_bytes / (size_t) n_experts;

	*a = *stack->a;
	a->shape[0] = rank;
	a->n_bytes = n_bytes;
	a->data =
		(const char *) stack->a->data + (size_t) target->expert_idx * n_bytes;
}

bool
adapter_stack_b(const AdapterStack *stack, const AdapterTarget *target,
				int32_t n_experts, LlmArena *arena, LlmStoredTensor *b)
{
	const int64_t rank = stack->b->shape[1] / n_experts;
	const size_t size =
		stack->b->n_bytes / (size_t) (stack->b->shape[0] * stack->b->shape[1]);
	const int64_t first_row =
		target->parts[0].module == LLM_ADAPTER_EXPERT_UP ? target->n_out : 0;
	const char *from = stack->b->data;
	char *to = llm_arena_alloc(arena, (size_t) (target->n_out * rank) * size);

	*b = *stack->b;
	b->shape[0] = target->n_out;
	b->shape[1] = rank;
	b->n_bytes = (size_t) (target->n_out * rank) * size;
	b->data = to;
	for (int64_t i = 0; to != NULL && i < target->n_out * rank; i++)
	{
		int64_t at = (first_row + i / rank) * stack->b->shape[1] +
					 i % rank * n_experts + target->expert_idx;

		memcpy(to + (size_t) i * size, from + (size_t) at * size, size);
	}
	return to != NULL;
}
