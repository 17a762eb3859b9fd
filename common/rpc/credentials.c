/*
 * What listeners and channels are secured with: nothing yet. Mutual TLS belongs here and nowhere else; note that ports
 * of one grpc_server share all methods, so a plaintext health port for probers will be a server of its own.
 */
#include "common/rpc/internal.h"

grpc_server_credentials *rpc_credentials_for_listener(void)
{
	return grpc_insecure_server_credentials_create();
}

grpc_channel_credentials *rpc_credentials_for_channel(void)
{
	return grpc_insecure_credentials_create();
}
