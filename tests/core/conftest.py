import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small products are quicker on one thread, most of all where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
