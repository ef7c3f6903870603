"""Nothing of vLLM: only the two kernels that SGLang's CPU path imports."""
