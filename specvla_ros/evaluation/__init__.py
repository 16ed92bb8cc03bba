"""`specvla eval`: success and decoding figures of a policy on LIBERO, by OpenVLA's protocol."""
