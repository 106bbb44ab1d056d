delete from held_removals
where location = $1 and partition_index = $2 and partition_count = $3 and agent = $4
