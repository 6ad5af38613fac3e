# The image of the provider `claude` for backends that need one. The agent runs as the caller's user id, whatever this
# says, with a read-only root; its home is a memory file system.
FROM node:22-bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl git openssh-client procps ripgrep \
    && rm -rf /var/lib/apt/lists/*
RUN npm install --global @anthropic-ai/claude-code && npm cache clean --force
ENV DISABLE_AUTOUPDATER=1
