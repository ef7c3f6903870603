"""vLLM-Ascend and MindIE on Huawei NPUs."""
