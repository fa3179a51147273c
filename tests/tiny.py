"""The recipe of a run whose models are so small that each stage takes a second."""

STAGES = ["text", "apm", "language", "align", "instruct"]
RECIPE = """
run = "run"
data = "data"
[models.apm]
image_size = 64
blocks = [1, 1, 1, 1]
planes = 8
width = 32
heads = 2
feed_forward = 64
encoder_layers = 1
decoder_layers = 1
train_batch_norm = true
frozen_stages = 0
[models.text]
width = 32
layers = 1
heads = 2
feed_forward = 64
positions = 64
projection = 32
[models.language]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 16
query_pre_attn_scalar = 16.0
sliding_window = 64
sliding_window_pattern = 2
max_position_embeddings = 2048
[models.lora]
rank = 4
[text]
batch = 16
steps = 6
checkpoint_every = 2
[apm]
batch = 6
epochs = 1
checkpoint_every = 2
[language]
batch = 2
steps = 5
questions = 3
checkpoint_every = 2
[align]
batch = 2
steps = 4
checkpoint_every = 2
[instruct]
batch = 2
steps = 5
questions = 4
checkpoint_every = 2
"""
