from memserve.hardware.detection import host


def test_instruction_sets(tmp_path):
    xeon, arm, none = tmp_path / "xeon", tmp_path / "arm", tmp_path / "none"
    xeon.write_text("processor: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile amx_bf16\n")
    arm.write_text("processor: 0\nFeatures\t: fp asimd evtstrm\n")
    assert host.instruction_sets(xeon) == ("avx2", "avx512", "avx512_bf16", "amx")
    assert host.instruction_sets(arm) == ("asimd",)
    assert host.instruction_sets(none) in ((), ("asimd",))


def test_a_container_limit_counts_as_the_ram(tmp_path):
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{2**30}\n")
    assert host.memory(tmp_path) == 2**30
    (group / "memory.max").write_text("max\n")
    assert host.memory(tmp_path) > 2**30


def test_available(tmp_path):
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 100 kB\nMemAvailable:   40 kB\n")
    assert host.available(info) == 40 * 1024
    assert host.available(tmp_path / "none") is None
